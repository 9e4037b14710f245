-- Copies entries that are above all that the target has, under their own IDs and in order, if the target is where it was
-- seen to be: a bridge may write to it at the same time.
--
-- KEYS[1]  the stream on the target
-- ARGV     database ('' on a Cluster), the newest ID that the stream was seen to have, cap ('0' is none); then for each
--          entry: ID, how many words, field, value, ...
-- Returns  the newest ID before anything was written, how many entries were written, the error that stopped it or ''.
local key, db, seen, cap = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
if db ~= '' then
  local reply = redis.pcall('SELECT', db)
  if reply.err then return { '0-0', 0, reply.err } end
end

local newest = '0-0'
local stream = redis.pcall('XINFO', 'STREAM', key)
if not stream.err then
  for i = 1, #stream, 2 do
    if stream[i] == 'last-generated-id' then newest = stream[i + 1] end
  end
elseif not string.find(stream.err, 'no such key', 1, true) then
  return { newest, 0, stream.err }
end
if newest ~= seen then return { newest, 0, '' } end

local at, written = 4, 0
while at <= #ARGV do
  local id, from = ARGV[at], at + 2
  local to = from + tonumber(ARGV[at + 1]) - 1
  local reply
  if cap == '0' then
    reply = redis.pcall('XADD', key, id, unpack(ARGV, from, to))
  else
    reply = redis.pcall('XADD', key, 'MAXLEN', '~', cap, id, unpack(ARGV, from, to))
  end
  if type(reply) == 'table' and reply.err then return { newest, written, reply.err } end
  at, written = to + 1, written + 1
end
return { newest, written, '' }
