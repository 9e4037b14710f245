-- Stores a run of one queue's messages, in order, and stops at the first error: what comes after a message that was not
-- stored must not be stored either. What the keys hold is told in ../keys.rs.
--
-- ARGV     queue, ID of the message that was sent before these and whose fate was not known then ('' if there is none);
--          then for each message: ID, the same as a member of the queue, digest, value
-- Returns  how many messages are settled, what stopped it ('' nothing, 'behind', 'message'), the error; then the numbers,
--          from 1, of those that are there with other content and not synced
local queue, before = ARGV[1], ARGV[2]

local function failed(reply)
  return type(reply) == 'table' and reply.err
end

local function digest_of(key)
  return redis.pcall('GETRANGE', key, 11, 26)
end

local listed = false
local function enlist(key, member)
  local err = failed(redis.pcall('ZADD', 'unsynced:' .. queue, 0, member))
    or failed(redis.pcall('SADD', 'unsynced_keys_set', key))
  if not err and not listed then
    err = failed(redis.pcall('SADD', 'unsynced_queues', queue))
    listed = not err
  end
  return err
end

-- Stores one message: the error, or whether it is in conflict with what is there.
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
    if was == digest and (synced or redis.call('HEXISTS', 'refused', key) == 1) then return end
    if was ~= digest and not synced then return nil, true end
    if was ~= digest then
      local err = failed(redis.pcall('SET', key, value))
      if err then return err end
    end
  end
  -- Another message than the one that Kafka has.
  if marker then redis.call('DEL', 'synced:' .. key) end
  return enlist(key, member)
end

if before ~= '' then
  local key = queue .. ':' .. before
  local there = redis.pcall('EXISTS', key, 'synced:' .. key)
  if failed(there) then return { 0, 'message', there.err } end
  if there == 0 then return { 0, 'behind', '' } end
end

local answer = { 0, '', '' }
for at = 3, #ARGV, 4 do
  local number = (at + 1) / 4
  local err, conflict = store(queue .. ':' .. ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3])
  if err then
    answer[2], answer[3] = 'message', err
    break
  end
  if conflict then answer[#answer + 1] = number end
  answer[1] = number
end
return answer
