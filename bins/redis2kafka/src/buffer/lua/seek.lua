-- Looks at messages that a scan has found: those that are not synced, not refused and in no queue are put aside, for
-- restore.lua to bring back.
--
-- ARGV     for each message: its key, its queue, its member there
-- Returns  how many were put aside
local aside = 0
for at = 1, #ARGV, 3 do
  local key, queue, member = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if redis.call('PTTL', key) == -1 and redis.call('EXISTS', 'synced:' .. key) == 0
      and redis.call('HEXISTS', 'refused', key) == 0 then
    if redis.call('ZSCORE', 'unsynced:' .. queue, member) then
      redis.call('SADD', 'unsynced_keys_set', key)
      redis.call('SADD', 'unsynced_queues', queue)
    else
      redis.call('ZADD', 'rebuild:' .. queue, 0, member)
      redis.call('SADD', 'rebuild_queues', queue)
      aside = aside + 1
    end
  end
end
return aside
