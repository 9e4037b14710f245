-- Whether the books of the buffer agree with each other, and since when they are kept.
--
-- ARGV     this moment
-- Returns  how many messages are unsynced; how many of them the queues have; the moment at which this was asked first,
--          since the server has its data
local queued = 0
for _, queue in ipairs(redis.call('SMEMBERS', 'unsynced_queues')) do
  local length = redis.pcall('ZCARD', 'unsynced:' .. queue)
  -- What is no queue is told by whoever reads it.
  queued = queued + (tonumber(length) or 0)
end
local since = redis.call('GET', 'buffer_since')
if not since then
  since = ARGV[1]
  -- Where the memory is full, the next one asks first.
  redis.pcall('SET', 'buffer_since', since)
end
return { redis.call('SCARD', 'unsynced_keys_set'), queued, since }
