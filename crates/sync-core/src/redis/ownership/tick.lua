-- record, version known, then names of members that are proven dead
local record, version = ARGV[5], ARGV[6]
local dead = {}
for i = 7, #ARGV do dead[ARGV[i]] = true end
local all = all_members()
if not all[me] then return { 'fenced' } end
-- An older state has come back, in a server that does not tell its run ID.
if tonumber(version) > tonumber(get('#version')) then
  begin_anew()
  return { 'fenced' }
end
-- Where the lease of this member ran out too, the server could not be reached for so long: no sign of death.
local away = all[me].expires < now
local dropped = {}
for name, member in pairs(all) do
  if name == me then
    renew(me, record)
    if record ~= member.record then changed() end
  elseif dead[name] or (member.expires < now and not away) then
    drop(name)
    dropped[#dropped + 1] = name
  elseif member.expires < now then
    renew(name, member.record)
  end
end
local newest = get('#version')
if newest == version then return { 'same' } end
local listed = {}
for name, member in pairs(all_members()) do
  listed[#listed + 1] = name
  listed[#listed + 1] = member.record
end
return { 'changed', newest, listed, redis.call('HGETALL', owners), dropped }
