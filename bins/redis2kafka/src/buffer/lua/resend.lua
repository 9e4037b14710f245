-- Puts refused messages back into their queues. One that Kafka has by now, and that expires, is none any more.
--
-- ARGV     for each message: its key, its queue, its member there
-- Returns  how many are in a queue now
local back = 0
for at = 1, #ARGV, 3 do
  local key, queue, member = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if redis.call('HDEL', 'refused', key) == 1 and redis.call('PTTL', key) == -1 then
    redis.call('ZADD', 'unsynced:' .. queue, 0, member)
    redis.call('SADD', 'unsynced_keys_set', key)
    redis.call('SADD', 'unsynced_queues', queue)
    back = back + 1
  end
end
return back
