-- Reads what comes next in some queues, in the order given, until so much is read. What is not there any more, or is
-- synced, is taken out of its queue.
--
-- ARGV     the most messages, the most bytes (one message may exceed it alone), the most messages of one queue; then for each
--          queue: its name, the member after which to read ('' for the first)
-- Returns  for each queue that was looked at: '1' if there may be more, else '0'; an error or ''; then member, value, ...
local count, bytes, share = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local function id_of(member)
  local ms, seq = string.match(member, '^0*(%d+)%-0*(%d+)$')
  return ms .. '-' .. seq
end

local answer = {}
for at = 4, #ARGV, 2 do
  if count <= 0 or bytes <= 0 then break end
  local queue, after = ARGV[at], ARGV[at + 1]
  local most = math.min(count, share)
  local from = after == '' and '-' or '(' .. after
  local members = redis.pcall('ZRANGEBYLEX', 'unsynced:' .. queue, from, '+', 'LIMIT', 0, most)
  local found = { '0', '' }
  if members.err then
    found[2] = members.err
  else
    if #members == most then found[1] = '1' end
    for _, member in ipairs(members) do
      local key = queue .. ':' .. id_of(member)
      local length = redis.pcall('STRLEN', key)
      if type(length) == 'table' then
        found[2] = length.err
        break
      end
      if length == 0 or redis.call('PTTL', key) >= 0 then
        redis.call('ZREM', 'unsynced:' .. queue, member)
        redis.call('SREM', 'unsynced_keys_set', key)
      elseif #answer + #found > 2 and length > bytes then
        found[1] = '1'
        bytes = 0
        break
      else
        found[#found + 1] = member
        found[#found + 1] = redis.call('GET', key)
        count, bytes = count - 1, bytes - length
      end
    end
    if redis.call('EXISTS', 'unsynced:' .. queue) == 0 then redis.call('SREM', 'unsynced_queues', queue) end
  end
  answer[#answer + 1] = found
end
return answer
