-- What these queues begin with. One that has nothing is listed no more.
--
-- ARGV     queues
-- Returns  for each its first member, '' if there is none, or '!' if it cannot be told: then whoever reads it is told why
local answer = {}
for at, queue in ipairs(ARGV) do
  local first = redis.pcall('ZRANGE', 'unsynced:' .. queue, 0, 0)
  answer[at] = first.err and '!' or first[1] or ''
  if answer[at] == '' then redis.call('SREM', 'unsynced_queues', queue) end
end
return answer
