-- After the group: the IDs to acknowledge, ascending. Answers how many entries were deleted, and why not those that
-- should have been.
local PIECE = 1000
local acknowledged, given = 0, #ARGV - 1
for i = 2, #ARGV, PIECE do
  local reply = redis.pcall('XACK', stream, group, unpack(ARGV, i, math.min(i + PIECE - 1, #ARGV)))
  if type(reply) == 'table' then return redis.error_reply(plain(reply.err)) end
  acknowledged = acknowledged + reply
end

-- Whatever goes wrong from here on: these entries are acknowledged.
local deleted = 0
local done, problem = pcall(function()
  local ours, theirs = look()
  if not ours then return end
  local trimmed, all = trim(ours, theirs)
  deleted = trimmed
  -- Ones above an entry that this group still has pending, which is rare, or that the trimming did not come to. Only
  -- if this group had them all: else the stream may be another one than that which they were read from.
  if acknowledged < given or (all and below(ARGV[#ARGV], ours)) then return end
  local deletable = {}
  for i = 2, #ARGV do
    if not theirs or below(ARGV[i], theirs) then deletable[#deletable + 1] = ARGV[i] end
  end
  for i = 1, #deletable, PIECE do
    deleted = deleted + call('XDEL', stream, unpack(deletable, i, math.min(i + PIECE - 1, #deletable)))
  end
end)
return { deleted, done and '' or problem }
