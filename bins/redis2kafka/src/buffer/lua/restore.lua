-- Puts messages of a queue that were put aside back into it: the first ones of them, so many. heads.lua reads nothing that
-- stands behind those that are still aside. What was synced meanwhile is not put back.
--
-- ARGV     queue, at most how many
-- Returns  how many were put back, how many are still aside
local queue, most = ARGV[1], tonumber(ARGV[2])
local aside = 'rebuild:' .. queue
local keys, ranked = {}, {}
for _, member in ipairs(redis.call('ZRANGE', aside, 0, most - 1)) do
  local ms, seq = string.match(member, '^0*(%d+)%-0*(%d+)$')
  local key = queue .. ':' .. ms .. '-' .. seq
  if redis.call('PTTL', key) == -1 then
    keys[#keys + 1] = key
    ranked[#ranked + 1], ranked[#ranked + 2] = 0, member
  end
end
if #keys > 0 then
  redis.call('ZADD', 'unsynced:' .. queue, unpack(ranked))
  redis.call('SADD', 'unsynced_keys_set', unpack(keys))
  redis.call('SADD', 'unsynced_queues', queue)
end
redis.call('ZREMRANGEBYRANK', aside, 0, most - 1)
local left = redis.call('ZCARD', aside)
if left == 0 then redis.call('SREM', 'rebuild_queues', queue) end
return { #keys, left }
