-- Writes a run of one stream's entries under the IDs that they have at the source, in order, and stops at the first
-- error: what comes after an entry that was not written must not be written either.
--
-- KEYS[1]  the stream on the target
-- ARGV     database ('' on a Cluster), ID of the entry that was sent before these and whose fate was not known then
--          ('' if there is none), cap ('0' is none), what becomes of a conflict ('auto-id' or 'dead-letter'),
--          whether WAIT follows ('1' or '0'), what is known of the stream's oldest entry ('ID copy', 'ID other', ''); then
--          for each entry: ID, how many words, field, value, ...
-- Returns  how many entries are settled, what stopped it ('' nothing, 'behind', 'target', 'entry', 'unproven'), the
--          error; the fields of the oldest entry where it must be known whether it is a copy (its ID is the error); then
--          for each conflict: the entry's number from 1, 'conflict' or 'new-id', and the words for it.
local key = KEYS[1]
local db, before, cap, rule, waiting, proof = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]

local function failed(reply)
  return type(reply) == 'table' and reply.err
end

-- IDs are two numbers of 64 bits, more than Lua's numbers hold: without leading zeros, the longer one is the larger.
local function less(a, b)
  local a1, a2 = string.match(a, '^(%d+)%-(%d+)$')
  local b1, b2 = string.match(b, '^(%d+)%-(%d+)$')
  if a1 == b1 then a1, b1 = a2, b2 end
  if #a1 ~= #b1 then return #a1 < #b1 end
  return a1 < b1
end

local function describe()
  local reply = redis.pcall('XINFO', 'STREAM', key)
  local err = failed(reply)
  if err and string.find(err, 'no such key', 1, true) then return { ['last-generated-id'] = '0-0' } end
  if err then return nil, err end
  local stream = {}
  for i = 1, #reply, 2 do stream[reply[i]] = reply[i + 1] end
  return stream
end

-- Whether the stream may have lost this entry by trimming: it is older than all that is left, and what is missing was
-- not deleted by name. Before Redis 7.0 nobody counts what was added: there the cap must have been reached.
local function trimmed(stream, id)
  local first = stream['first-entry']
  if not first or not less(id, first[1]) then return false end
  if stream['entries-added'] then
    return stream['entries-added'] > stream['length'] and stream['max-deleted-entry-id'] == '0-0'
  end
  return tonumber(cap) > 0 and stream['length'] >= tonumber(cap)
end

local function add(id, from, to)
  if cap == '0' then return redis.pcall('XADD', key, id, unpack(ARGV, from, to)) end
  return redis.pcall('XADD', key, 'MAXLEN', '~', cap, id, unpack(ARGV, from, to))
end

local function same(fields, from, to)
  if #fields ~= to - from + 1 then return false end
  for i, word in ipairs(fields) do
    if word ~= ARGV[from + i - 1] then return false end
  end
  return true
end

-- What an entry comes to that XADD did not take: an error, or 'there', or 'conflict' and what it consists in, or the
-- oldest entry, of which must be known first whether it is a copy. The error's text decides nothing: the target's
-- content does.
local function examine(id, from, to, err)
  local found = redis.pcall('XRANGE', key, id, id)
  if failed(found) then return failed(found) end
  if found[1] then
    if same(found[1][2], from, to) then return nil, 'there' end
    return nil, 'conflict', 'the target has ' .. id .. ' with other content'
  end
  local stream, cannot = describe()
  if not stream then return cannot end
  if less(stream['last-generated-id'], id) then return err end
  if trimmed(stream, id) then
    -- It was, if what is left is a copy of the same stream: entries come in order.
    local oldest = stream['first-entry']
    if proof == oldest[1] .. ' copy' then return nil, 'there' end
    if proof ~= oldest[1] .. ' other' then return oldest[1], 'unproven', oldest[2] end
  end
  return nil, 'conflict', 'the target does not have ' .. id .. ' and is past it, at ' .. stream['last-generated-id']
end

-- A new ID just above the newest: one of the server's clock would put all that comes from the source meanwhile below
-- it. (Redis 6 does not know <ms>-*.)
local function add_anew(from, to)
  local stream, cannot = describe()
  if not stream then return { err = cannot } end
  local newest = string.match(stream['last-generated-id'], '^%d+')
  local reply = add(newest .. '-*', from, to)
  if failed(reply) then reply = add('*', from, to) end
  return reply
end

if db ~= '' then
  local err = failed(redis.pcall('SELECT', db))
  if err then return { 0, 'target', err } end
end
if before ~= '' then
  local stream, err = describe()
  if err then return { 0, 'target', err } end
  if less(stream['last-generated-id'], before) then return { 0, 'behind', '' } end
end

local answer = { 0, '', '', {} }
local at, number, wrote = 7, 0, false
while at <= #ARGV do
  local id, from = ARGV[at], at + 2
  local to = from + tonumber(ARGV[at + 1]) - 1
  at, number = to + 1, number + 1
  local err = failed(add(id, from, to))
  if not err then
    wrote = true
  else
    local kind, words
    err, kind, words = examine(id, from, to, err)
    if kind == 'conflict' and rule == 'auto-id' then
      local reply = add_anew(from, to)
      err = failed(reply)
      if not err then
        wrote, kind, words = true, 'new-id', words .. ': written as ' .. reply
      end
    end
    if err then
      answer[2], answer[3] = 'entry', err
      if kind == 'unproven' then answer[2], answer[4] = kind, words end
      break
    end
    if kind ~= 'there' then
      answer[#answer + 1], answer[#answer + 2], answer[#answer + 3] = number, kind, words
    end
  end
  answer[1] = number
end
-- WAIT asks for what this connection has written: what another has written before is covered by a write that changes
-- nothing.
if waiting == '1' and not wrote and answer[1] > 0 then
  local stream, err = describe()
  if stream and stream['length'] then err = failed(redis.pcall('XSETID', key, stream['last-generated-id'])) end
  if err then return { 0, 'target', err } end
end
return answer
