-- Stands before each of the scripts beside it. What the keys hold is told in ../ownership.rs.
local members, owners = KEYS[1], KEYS[2]
-- home: the number of the database that holds both keys; 0 on a Cluster, where that is the one that may be selected.
local home, group, lease, me = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
redis.call('SELECT', home)
-- A script may go on writing without free memory once it has written something: and this needs none.
redis.call('HDEL', members, '')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function number(n) return string.format('%.0f', n) end
local function get(field) return redis.call('HGET', members, field) end
local function set(field, value) redis.call('HSET', members, field, value) end
local function changed() redis.call('HINCRBY', members, '#version', 1) end
local function count_owned(by) redis.call('HINCRBY', members, '#owned', by) end

-- Name to expiry and record of every member.
local function all_members()
  local found = {}
  local fields = redis.call('HGETALL', members)
  for i = 1, #fields, 2 do
    local name = string.match(fields[i], '^member (.+)$')
    if name then
      local expires, record = string.match(fields[i + 1], '^(%d+) (.*)$')
      found[name] = { expires = tonumber(expires), record = record }
    end
  end
  return found
end

local function renew(name, record) set('member ' .. name, number(now + lease) .. ' ' .. record) end

-- Whatever is blocked on it returns, and every later read that names it fails as a whole.
local function delete_fence(field)
  local db, key = string.match(field, '^fence %S+ (%d+) (.*)$')
  redis.call('SELECT', db)
  redis.call('DEL', key)
  redis.call('SELECT', home)
  redis.call('HDEL', members, field)
end

local function delete_fences(name)
  for _, field in ipairs(redis.call('HKEYS', members)) do
    local owner = string.match(field, '^fence (%S+) ')
    if owner and (name == nil or owner == name) then delete_fence(field) end
  end
end

-- Ends a membership. The fences go in the same script that frees the buckets: that is what makes it safe.
local function drop(name)
  delete_fences(name)
  redis.call('HDEL', members, 'member ' .. name)
  local owned = redis.call('HGETALL', owners)
  for i = 1, #owned, 2 do
    if owned[i + 1] == name then
      redis.call('HDEL', owners, owned[i])
      count_owned(-1)
    end
  end
  changed()
end

-- The life of the server that this was written in; empty where INFO is not permitted.
local info = redis.pcall('INFO', 'server')
local server = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or ''

-- A restart or a failover may have brought back an older state, and an eviction may have taken a part of it. Then
-- nobody is a member any more: all that is known is deleted, and all join again.
local known = get('#server')
local function begin_anew()
  delete_fences()
  redis.call('DEL', members, owners)
  set('#server', server)
  -- The names are gone, so fences of theirs may stand. Whoever has one notices within a lease.
  if not known then set('#claims_from', number(now + lease)) end
end
-- Who may not ask for it says nothing about it.
local replaced = known and known ~= '' and server ~= '' and known ~= server
if replaced or tonumber(get('#owned') or 0) ~= redis.call('HLEN', owners) then begin_anew() end
