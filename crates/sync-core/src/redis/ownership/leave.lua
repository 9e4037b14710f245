if get('member ' .. me) then drop(me) end
if next(all_members()) == nil then redis.call('DEL', members, owners) end
return { 'left' }
