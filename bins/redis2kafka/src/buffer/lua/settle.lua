-- Marks messages of one queue as synced, and others as refused; both leave the queue, and so do those that are lost.
--
-- ARGV     queue, for how long a marker stays, for how long a message stays that is synced (ms each), how many are synced,
--          how many are refused; for each that is synced: ID, member, digest; for each that is refused: ID, member, digest
--          ('' if it has none), why; for each that is lost: ID, member
-- Returns  how many have left the queue
local queue, marked, kept = ARGV[1], ARGV[2], ARGV[3]
local refused_at = 6 + 3 * tonumber(ARGV[4])
local lost_at = refused_at + 4 * tonumber(ARGV[5])
-- So many leave with one command of each kind.
local AT_ONCE = 2000
local call = redis.call

-- A key of a wrong kind is met before anything is written: what left its queue and was not marked would be in none.
call('SCARD', 'unsynced_keys_set')
if lost_at > refused_at then call('HLEN', 'refused') end

local keys, members, digests, reasons, leaving = {}, {}, {}, {}, 0
local function leaves(key, at)
  leaving = leaving + 1
  keys[leaving], members[leaving] = key, ARGV[at + 1]
end

-- Another message may stand there by now, of a stream that was made anew: Kafka does not have that one, nor has it refused it.
local some_replaced = call('EXISTS', 'replaced') == 1
local function is_itself(key, digest)
  if not some_replaced then return true end
  local now = call('HGET', 'replaced', key)
  if not now then return true end
  if now == digest then call('HDEL', 'replaced', key) end
  return now == digest
end

for at = 6, refused_at - 1, 3 do
  local key = queue .. ':' .. ARGV[at]
  if is_itself(key, ARGV[at + 2]) then
    leaves(key, at)
    digests[leaving] = ARGV[at + 2]
  end
end
local synced = leaving
for at = refused_at, lost_at - 1, 4 do
  local key = queue .. ':' .. ARGV[at]
  if ARGV[at + 2] == '' or is_itself(key, ARGV[at + 2]) then
    leaves(key, at)
    reasons[#reasons + 1], reasons[#reasons + 2] = key, ARGV[at + 3]
  end
end
for at = lost_at, #ARGV, 2 do
  local key = queue .. ':' .. ARGV[at]
  if call('EXISTS', key) == 0 then leaves(key, at) end
end

-- What frees memory comes first: a script that has begun to write is not stopped where the memory is full.
local left = 0
for from = 1, leaving, AT_ONCE do
  local to = math.min(from + AT_ONCE - 1, leaving)
  left = left + call('ZREM', 'unsynced:' .. queue, unpack(members, from, to))
  call('SREM', 'unsynced_keys_set', unpack(keys, from, to))
end
if synced > 0 then
  local time = call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local message_until, marker_until = string.format('%.0f', now + kept), string.format('%.0f', now + marked)
  local some_refused = call('EXISTS', 'refused') == 1
  for at = 1, synced do
    local key = keys[at]
    call('PEXPIREAT', key, message_until)
    call('SET', 'synced:' .. key, digests[at], 'PXAT', marker_until)
    if some_refused then call('HDEL', 'refused', key) end
  end
end
for at = 1, #reasons, 2 do
  call('HSET', 'refused', reasons[at], reasons[at + 1])
end
if call('EXISTS', 'unsynced:' .. queue) == 0 then call('SREM', 'unsynced_queues', queue) end
return left
