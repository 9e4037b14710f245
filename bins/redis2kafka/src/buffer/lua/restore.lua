-- Puts all messages of a queue that were put aside back into it at once, so that nothing is sent before what stands before
-- it. What was synced meanwhile is found out when it is read.
--
-- ARGV     queue
-- Returns  how many
local queue = ARGV[1]
local members = redis.call('ZRANGE', 'rebuild:' .. queue, 0, -1)
for _, member in ipairs(members) do
  local ms, seq = string.match(member, '^0*(%d+)%-0*(%d+)$')
  redis.call('ZADD', 'unsynced:' .. queue, 0, member)
  redis.call('SADD', 'unsynced_keys_set', queue .. ':' .. ms .. '-' .. seq)
end
if #members > 0 then redis.call('SADD', 'unsynced_queues', queue) end
redis.call('DEL', 'rebuild:' .. queue)
redis.call('SREM', 'rebuild_queues', queue)
return #members
