-- Answers how many entries were deleted, whether more can be (1), and the other group for which something is kept that
-- this one does not need any more, with the ID that it needs first.
local done, answer = pcall(function()
  local ours, theirs, whose = look()
  if not ours then return { 0, 0 } end
  local deleted, all = trim(ours, theirs)
  if not all then return { deleted, 1 } end
  if theirs and below(theirs, ours) then
    local kept = call('XRANGE', stream, theirs, '(' .. ours, 'COUNT', 1)
    if #kept > 0 then return { deleted, 0, whose, theirs } end
  end
  return { deleted, 0 }
end)
if done then return answer end
if string.find(answer, 'no such key', 1, true) then return { 0, 0 } end
return redis.error_reply(answer)
