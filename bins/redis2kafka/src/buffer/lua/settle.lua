-- Marks messages of one queue as synced, and others as refused; both leave the queue.
--
-- ARGV     queue, for how long a marker stays, for how long a message stays that is synced (ms each), how many are synced;
--          for each of these: ID, member, digest; then for each that is refused: ID, member, why
-- Returns  how many have left the queue
local queue, marked, kept, synced = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local left = 0
-- What frees memory comes first: a script that has begun to write is not stopped where the memory is full.
for at = 5, #ARGV, 3 do
  local key, is_synced = queue .. ':' .. ARGV[at], at < 5 + 3 * synced
  -- Another message may stand there by now, of a stream that was made anew: Kafka does not have that one.
  local digest = is_synced and redis.call('GETRANGE', key, 11, 26) or ''
  if digest == '' or digest == ARGV[at + 2] then
    left = left + redis.call('ZREM', 'unsynced:' .. queue, ARGV[at + 1])
    redis.call('SREM', 'unsynced_keys_set', key)
    if is_synced then
      redis.call('PEXPIRE', key, kept)
      redis.call('SET', 'synced:' .. key, ARGV[at + 2], 'PX', marked)
    else
      redis.call('HSET', 'refused', key, ARGV[at + 2])
    end
  end
end
if redis.call('EXISTS', 'unsynced:' .. queue) == 0 then redis.call('SREM', 'unsynced_queues', queue) end
return left
