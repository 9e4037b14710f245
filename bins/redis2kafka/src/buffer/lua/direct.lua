-- Stores one message behind all others of its queue, whatever the clocks of those who store say.
--
-- ARGV     the process that stores, queue, ID, the same as a member of the queue, digest, value
-- Returns  '' if it is there; else the last member of the queue, behind which it would not have come, or 'taken' if its key
--          has another message
local process, queue, id, member, digest, value = unpack(ARGV)
local key = queue .. ':' .. id
-- It may have been asked before, and the answer was lost.
local there = redis.call('GET', 'synced:' .. key) or redis.call('GETRANGE', key, 11, 26)
if there == digest then return '' end
if there ~= '' then return 'taken' end
local last = redis.call('ZREVRANGE', 'unsynced:' .. queue, 0, 0)[1]
if last and last >= member then return last end
redis.call('SET', key, value)
redis.call('ZADD', 'unsynced:' .. queue, 0, member)
redis.call('SADD', 'unsynced_keys_set', key)
redis.call('SADD', 'unsynced_queues', queue)
redis.pcall('PUBLISH', 'unsynced_queues', process .. ' ' .. queue)
return ''
