-- Stands before each of the scripts beside it.
local stream, group = KEYS[1], ARGV[1]
-- Entries that one trimming may delete: some hundred nodes of the stream, less than a millisecond.
local AT_ONCE = 10000

-- The server's words may hold a key or a name, and the client library never returns an error that is not UTF-8.
local function plain(words) return (string.gsub(words, '[\128-\255]', '?')) end

-- Redis does not always say which command it is that the user may not give.
local function call(command, ...)
  local reply = redis.pcall(command, ...)
  if type(reply) == 'table' and reply.err then error(plain(reply.err) .. ' (' .. command .. ')', 0) end
  return reply
end

-- The numbers of an ID have up to 64 bits, which Lua's do not hold: they are compared, and counted up, as text.
local function parts(id) return string.match(id, '^(%d+)%-(%d+)$') end

local function below(a, b)
  local a1, a2 = parts(a)
  local b1, b2 = parts(b)
  if a1 == b1 then a1, b1 = a2, b2 end
  if #a1 ~= #b1 then return #a1 < #b1 end
  return a1 < b1
end

local function plus_one(digits)
  local head, nines = string.match(digits, '^(%d-)(9*)$')
  local last = tonumber(string.sub(head, -1)) or 0
  return string.sub(head, 1, -2) .. (last + 1) .. string.rep('0', #nines)
end

local LAST = '18446744073709551615'
local function after(id)
  local ms, seq = parts(id)
  if seq ~= LAST then return ms .. '-' .. plus_one(seq) end
  -- Nothing comes after the last of all IDs: whoever was handed that needs nothing but it.
  if ms == LAST then return id end
  return plus_one(ms) .. '-0'
end

-- The lowest ID that a group still needs: of what it was handed the lowest pending one, and all that it was not.
local function first_needed(of)
  local first = after(of['last-delivered-id'])
  if of.pending > 0 then
    local pending = call('XPENDING', stream, of.name)[2]
    if pending and below(pending, first) then return pending end
  end
  return first
end

-- What our group needs first (nothing is known where it is not there), what the others do, and which of them it is.
local function look()
  local ours, theirs, whose
  for _, fields in ipairs(call('XINFO', 'GROUPS', stream)) do
    local of = {}
    for i = 1, #fields, 2 do of[fields[i]] = fields[i + 1] end
    local first = first_needed(of)
    if of.name == group then
      ours = first
    elseif not theirs or below(first, theirs) then
      theirs, whose = first, of.name
    end
  end
  return ours, theirs, whose
end

-- Deletes what no group needs any more: how many, and whether that was all.
local function trim(ours, theirs)
  local first = theirs and below(theirs, ours) and theirs or ours
  local trimmed = 0
  if call('XLEN', stream) > AT_ONCE then
    trimmed = call('XTRIM', stream, 'MINID', '~', first, 'LIMIT', AT_ONCE)
    if trimmed > AT_ONCE / 2 then return trimmed, false end
  end
  return trimmed + call('XTRIM', stream, 'MINID', '=', first), true
end
