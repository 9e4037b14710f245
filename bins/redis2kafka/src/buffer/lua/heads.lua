-- Reads what comes next in some queues, in the order given, until so much is read. What is not there any more because Kafka
-- has it is taken out of its queue. Where messages are put aside (seek.lua), what stands behind them waits for them.
--
-- ARGV     the most messages, the most bytes (one message may exceed it alone), the most messages of one queue; then for each
--          queue: its name, the member after which to read ('' for the first)
-- Returns  for each queue that was looked at: '1' if there may be more, else '0'; an error or ''; the members of messages that
--          are gone and that Kafka does not have; then member, value, ...
local count, bytes, share = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
-- A message is asked for with one command, unless it is longer than that: then it is not known yet whether it may be read.
local SHORT = 65536
local match, pcall = string.match, redis.pcall

local some_aside = redis.call('EXISTS', 'rebuild_queues') == 1
local answer, any = {}, false
for at = 4, #ARGV, 2 do
  if count <= 0 or bytes <= 0 then break end
  local queue, after = ARGV[at], ARGV[at + 1]
  local most = math.min(count, share)
  local from = after == '' and '-' or '(' .. after
  local aside = some_aside and redis.call('ZRANGE', 'rebuild:' .. queue, 0, 0)[1]
  local to = aside and '(' .. aside or '+'
  local members = pcall('ZRANGEBYLEX', 'unsynced:' .. queue, from, to, 'LIMIT', 0, most)
  local lost = {}
  local found = { '0', '', lost }
  if members.err then
    found[2] = members.err .. ' (unsynced:' .. queue .. ')'
  else
    if #members == most then found[1] = '1' end
    local last = 3
    for _, member in ipairs(members) do
      local ms, seq = match(member, '^0*(%d+)%-0*(%d+)$')
      if not ms then
        found[2] = 'ERR its member ' .. member .. ' is none that a bridge has written: remove it with ZREM'
        break
      end
      local key = queue .. ':' .. ms .. '-' .. seq
      local value = pcall('GETRANGE', key, 0, SHORT - 1)
      if type(value) == 'table' then
        found[2] = value.err .. ' (' .. key .. ')'
        break
      end
      local length = #value
      if length == SHORT then
        length = redis.call('STRLEN', key)
      end
      if length == 0 then
        if redis.call('EXISTS', 'synced:' .. key) == 1 then
          redis.call('ZREM', 'unsynced:' .. queue, member)
          redis.call('SREM', 'unsynced_keys_set', key)
        else
          lost[#lost + 1] = member
        end
      elseif any and length > bytes then
        found[1] = '1'
        bytes = 0
        break
      else
        if length > #value then value = redis.call('GET', key) end
        found[last + 1], found[last + 2] = member, value
        last, any = last + 2, true
        count, bytes = count - 1, bytes - length
      end
    end
    if last == 3 and redis.call('EXISTS', 'unsynced:' .. queue) == 0 then redis.call('SREM', 'unsynced_queues', queue) end
  end
  answer[#answer + 1] = found
end
return answer
