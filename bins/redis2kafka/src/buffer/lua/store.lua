-- Stores a run of one queue's messages, in order, and stops at the first that cannot be stored: what comes after it must
-- not be stored either. What the keys hold is told in ../keys.rs.
--
-- ARGV     the process that stores, queue, ID and digest of the message that was sent before these and whose fate was not
--          known then ('' if there is none); then for each message: ID, the same as a member of the queue, digest, value
-- Returns  how many messages are settled; what stopped it ('' nothing, 'behind', 'conflict': another message, which waits for
--          Kafka, has the key of the next one, 'message': the next one met an error); the error; then the numbers, from 1,
--          of those whose keys belong to other messages that Kafka refused
local process, queue, before, digest_before = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
-- So many are stored with one command of each kind. Lua passes a few thousand words to a command, and no more.
local AT_ONCE = 4 * 1000

local function failed(reply)
  return type(reply) == 'table' and reply.err
end

local function digest_of(key)
  return redis.pcall('GETRANGE', key, 11, 26)
end

local listed = false
local function list_queue()
  if listed then return end
  local err = failed(redis.pcall('SADD', 'unsynced_queues', queue))
  listed = not err
  return err
end

-- Stores what begins and ends at these places, if nothing is there of any of it: the error, or whether it did.
local function store_new(from, to)
  local keys, markers, values, members = {}, {}, {}, {}
  local one, two = 0, 0
  for at = from, to, 4 do
    local key = queue .. ':' .. ARGV[at]
    one, two = one + 1, two + 2
    keys[one], markers[one] = key, 'synced:' .. key
    members[two - 1], members[two] = '0', ARGV[at + 1]
    values[two - 1], values[two] = key, ARGV[at + 3]
  end
  -- What goes wrong here goes wrong once more with the message that it is about.
  if redis.pcall('EXISTS', unpack(markers)) ~= 0 or redis.pcall('MSETNX', unpack(values)) ~= 1 then return nil, false end
  local err = failed(redis.pcall('ZADD', 'unsynced:' .. queue, unpack(members)))
    or failed(redis.pcall('SADD', 'unsynced_keys_set', unpack(keys)))
    or list_queue()
  return err, true
end

-- Stores one message: the error, or how it stands with another one under its key.
local function store(key, member, digest, value)
  local marker = redis.pcall('GET', 'synced:' .. key)
  if failed(marker) then return failed(marker) end
  if marker == digest then return end
  local new = redis.pcall('SETNX', key, value)
  if failed(new) then return failed(new) end
  if new == 0 then
    local was = digest_of(key)
    if failed(was) then return failed(was) end
    -- What is synced expires, and nothing else does; its marker may be gone, where the server evicts.
    local synced = marker or redis.call('PTTL', key) >= 0
    local refused = redis.call('HEXISTS', 'refused', key) == 1
    if was == digest and (synced or refused) then return end
    if was ~= digest and not synced then return nil, refused and 'refused' or 'waits' end
    if was ~= digest then
      local err = failed(redis.pcall('SET', key, value))
      if err then return err end
      marker = marker or true
    end
  end
  if marker then
    -- Another message than the one that Kafka has. Whoever is still sending that one must not mark this one: settle.lua.
    redis.call('DEL', 'synced:' .. key)
    redis.call('HSET', 'replaced', key, digest)
  end
  return failed(redis.pcall('ZADD', 'unsynced:' .. queue, 0, member))
    or failed(redis.pcall('SADD', 'unsynced_keys_set', key))
    or list_queue()
end

-- It may be there, and be another one, of a stream that was made anew: then the one that was sent did not get there.
if before ~= '' then
  local key = queue .. ':' .. before
  local marker = redis.pcall('GET', 'synced:' .. key)
  if failed(marker) then return { 0, 'message', failed(marker) } end
  if marker ~= digest_before then
    local was = digest_of(key)
    if failed(was) then return { 0, 'message', failed(was) } end
    if was ~= digest_before then return { 0, 'behind', '' } end
  end
end

local answer = { 0, '', '' }
local from = 5
while from <= #ARGV and answer[2] == '' do
  local to = math.min(from + AT_ONCE, #ARGV + 1) - 1
  local err, all = store_new(from, to)
  if err then
    answer[2], answer[3] = 'message', err
  elseif all then
    answer[1] = (to - 4) / 4
  else
    for at = from, to, 4 do
      local conflict
      err, conflict = store(queue .. ':' .. ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
      if err then
        answer[2], answer[3] = 'message', err
        break
      elseif conflict == 'waits' then
        answer[2] = 'conflict'
        break
      end
      local number = (at - 1) / 4
      if conflict then answer[#answer + 1] = number end
      answer[1] = number
    end
  end
  from = to + 1
end
-- Whoever may not tell the others is heard of at their next look.
if listed then redis.pcall('PUBLISH', 'unsynced_queues', process .. ' ' .. queue) end
return answer
