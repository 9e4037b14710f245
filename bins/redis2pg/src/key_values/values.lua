-- most bytes, then keys: of each `type digest` and its value, as of one moment; or nothing, where there is no such key, it
-- is larger by now, or of another type than those that are copied.
local most = tonumber(ARGV[1])
local read = {
  string = function(key) return { redis.call('GET', key) } end,
  hash = function(key) return redis.call('HGETALL', key) end,
  list = function(key) return redis.call('LRANGE', key, 0, -1) end,
  set = function(key) return redis.call('SMEMBERS', key) end,
  zset = function(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end,
}
local found = {}
for i = 2, #ARGV do
  local key = ARGV[i]
  local kind = kind_of(key)
  if read[kind] and (redis.call('MEMORY', 'USAGE', key) or 0) <= most then
    found[i - 1] = { kind .. ' ' .. string.sub(redis.call('DUMP', key), -8), read[kind](key) }
  else
    found[i - 1] = {}
  end
end
return found
