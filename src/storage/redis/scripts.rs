//! Scripts for changes that must happen in one step on the server.
//!
//! Each script only touches the keys that it is given, which are of one entry, so a cluster accepts it. They are sent by `EVAL`,
//! not by `EVALSHA`: the server keeps a compiled script by its hash anyway, and a server that was restarted needs no second
//! attempt.
//!
//! A value begins with 20 digits of time. Then follows the record: one byte of version (1), four of checksum, 16 of stamp.

/// Writes a value if the record at the key has a certain stamp. Returns 1 if it is written, otherwise 0.
///
/// ARGV\[1\] is that stamp, or empty if no record may be there. ARGV\[2\] is the stamp of the new record: if it is there already,
/// an earlier attempt has succeeded. ARGV\[3\] is the expiry (see [`Expiry::to_argument`](super::value::Expiry::to_argument)),
/// ARGV\[4\] the value. A value that is not a record counts as absent.
pub(super) const WRITE_IF: &str = "\
local there = redis.pcall('GETRANGE', KEYS[1], 20, 40)
if type(there) ~= 'string' or #there < 21 or string.byte(there, 1) ~= 1 then there = '' else there = string.sub(there, 6) end
if there == ARGV[2] then return 1 end
if there ~= ARGV[1] then return 0 end
if ARGV[3] == '0' then redis.call('UNLINK', KEYS[1])
elseif ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[4])
else redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[3]) end
return 1";

/// Moves the time of each key to ARGV\[2\] (20 digits). Returns how many records were there.
///
/// ARGV\[1\] is `<` to move only earlier times, and `>` to move only later ones. ARGV\[3\] is the expiry that belongs to the new
/// time.
pub(super) const RETAIN: &str = "\
local count = 0
for _, key in ipairs(KEYS) do
local there = redis.pcall('GETRANGE', key, 0, 20)
if type(there) == 'string' and #there == 21 and string.byte(there, 21) == 1 then
count = count + 1
local time = string.sub(there, 1, 20)
if (ARGV[1] == '<' and time < ARGV[2]) or (ARGV[1] == '>' and time > ARGV[2]) then
if ARGV[3] == '0' then redis.call('UNLINK', key)
else
redis.call('SETRANGE', key, 0, ARGV[2])
if ARGV[3] == '' then redis.call('PERSIST', key) else redis.call('PEXPIRE', key, ARGV[3]) end
end end end end
return count";

/// Deletes the key if its time is at or before ARGV\[1\] (20 digits). Returns 1 if it is deleted, otherwise 0.
pub(super) const EXPIRE: &str = "\
local time = redis.pcall('GETRANGE', KEYS[1], 0, 19)
if type(time) == 'string' and #time == 20 and time <= ARGV[1] then return redis.call('UNLINK', KEYS[1]) end
return 0";
