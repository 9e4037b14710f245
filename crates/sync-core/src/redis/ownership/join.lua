-- record, bridge, sink, earlier name or empty, then names of members that are proven dead
local record, bridge, sink, before = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local dead = {}
for i = 9, #ARGV do dead[ARGV[i]] = true end
for name, member in pairs(all_members()) do
  if name == before or dead[name] or member.expires < now then
    drop(name)
  else
    local other = cjson.decode(member.record)
    if other.bridge ~= bridge or other.sink ~= sink then return { 'other', member.record } end
  end
end
-- This process was a member, and no trace is left of anything: see the end of the prelude.
local lost = redis.call('EXISTS', members) == 0 and before ~= ''
renew(me, record)
if server ~= '' or not known then set('#server', server) end
if lost then set('#claims_from', number(now + lease)) end
changed()
return { 'joined' }
