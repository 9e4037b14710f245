-- most bytes, then keys: what each is, without its value. For each `type`, `type bytes` (too large to be looked at at
-- once) or `type bytes digest`; empty where there is no such key. A digest is the checksum at the end of DUMP
-- (https://redis.io/docs/latest/commands/dump/): it changes with the value, and seldom without.
local most = tonumber(ARGV[1])
local copied = { string = true, hash = true, list = true, set = true, zset = true }
local found = {}
for i = 2, #ARGV do
  local key = ARGV[i]
  local kind = kind_of(key)
  if kind == 'none' then
    found[i - 1] = ''
  elseif not copied[kind] then
    found[i - 1] = kind
  else
    local bytes = redis.call('MEMORY', 'USAGE', key) or 0
    if bytes > most then
      found[i - 1] = kind .. ' ' .. bytes
    else
      found[i - 1] = kind .. ' ' .. bytes .. ' ' .. string.sub(redis.call('DUMP', key), -8)
    end
  end
end
return found
