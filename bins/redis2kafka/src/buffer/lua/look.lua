-- What these queues begin with. One that has nothing is listed no more.
--
-- ARGV     queues
-- Returns  for each its first member, or '' if there is none
local answer = {}
for at, queue in ipairs(ARGV) do
  answer[at] = redis.call('ZRANGE', 'unsynced:' .. queue, 0, 0)[1] or ''
  if answer[at] == '' then redis.call('SREM', 'unsynced_queues', queue) end
end
return answer
