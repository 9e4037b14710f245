-- Stands before each of the scripts beside it. A key of a Cluster that is on its way to another node, or there by now,
-- is not here.
local function kind_of(key)
  local kind = redis.pcall('TYPE', key)
  if not kind.err then return kind.ok end
  if string.find(kind.err, 'non local key', 1, true) or string.find(kind.err, 'MOVED', 1, true) then return 'none' end
  error(kind.err)
end
