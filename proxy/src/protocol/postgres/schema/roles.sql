-- Every function below: a fixed search_path with pg_temp last (else a session's temporary pg_authid would be asked), name
-- and OID both given (a name can come back, an OID cannot be guessed to be ours), every check written "is not true" (a null
-- is a no). SQLSTATE TG001: not ours. TG002: wait and try again. TG003: a human must look. TG004: refused.

-- The version of this schema, as the gateway expects it, and the target's clock.
create function tidegate.version(out version int, out clock float8)
language sql volatile set search_path = pg_catalog, pg_temp
as $$ select 4, extract(epoch from clock_timestamp())::float8 $$;

create function tidegate._groups() returns text[]
language sql immutable set search_path = pg_catalog, pg_temp as :'group_query';
create function tidegate._owners() returns text[]
language sql immutable set search_path = pg_catalog, pg_temp as :'owner_query';

-- Whether the role is still there. Raises unless it is one of ours: right name for the OID, our mark, no power of its own.
create function tidegate._ours(p_name text, p_oid oid, p_disabled boolean) returns boolean
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare found_role record;
begin
  if (p_name ~ '^tg_[a-z0-9_]{1,27}$') is not true or p_oid is null then
    raise exception 'not the name of a session role' using errcode = 'TG001';
  end if;
  select rolname, rolcanlogin, rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls as powerful
    into found_role from pg_roles where oid = p_oid;
  if not found then return false; end if;
  if (found_role.rolname = p_name) is not true then
    raise exception 'OID % is now the role %, not %', p_oid, found_role.rolname, p_name using errcode = 'TG001';
  end if;
  if exists (select from pg_auth_members where roleid = 'tidegate_sessions'::regrole and member = p_oid) is not true then
    raise exception '% is not a member of tidegate_sessions', p_name using errcode = 'TG001';
  end if;
  if found_role.powerful is not false then
    raise exception '% was given attributes that no session role has', p_name using errcode = 'TG001';
  end if;
  if p_disabled and found_role.rolcanlogin is not false then
    raise exception '% is not disabled yet', p_name using errcode = 'TG002';
  end if;
  return true;
end $$;

-- Creates the role, all or nothing. p_by: later than this by the target's clock it refuses, so that a request that sat in
-- a dead network cannot create a role after the gateway has given it up. "before" is what inspect compares with.
-- p_verifier is of its password, if it has one. With p_inherit the role has its groups' privileges at once; without it must SET ROLE to one of them.
create function tidegate.mint(p_name text, p_groups text[], p_inherit boolean, p_owner text, p_until timestamptz,
  p_connections int, p_verifier text, p_by timestamptz, p_gateway text, p_lease uuid, p_session uuid, out role oid, out before jsonb)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  member_of text;
  v16 constant boolean := current_setting('server_version_num')::int >= 160000;
  options constant text := case when not v16 then '' when p_inherit then ' with inherit true, set false'
                                else ' with inherit false, set true' end;
begin
  if (clock_timestamp() <= p_by) is not true then
    raise exception 'the request to create % came too late', p_name using errcode = 'TG002';
  end if;
  if (p_name ~ '^tg_[a-z0-9_]{1,27}$') is not true then
    raise exception 'not the name of a session role' using errcode = 'TG004';
  end if;
  if (p_until > now() and p_until < now() + interval '400 days') is not true then
    raise exception 'a role cannot last until %', p_until using errcode = 'TG004';
  end if;
  if (p_connections between 1 and 1000) is not true then
    raise exception 'a role cannot have % connections', p_connections using errcode = 'TG004';
  end if;
  if p_groups is null or p_inherit is null or p_gateway is null or p_lease is null or p_session is null then
    raise exception 'mint needs groups, inherit, gateway, lease and session' using errcode = 'TG004';
  end if;
  if (p_verifier ~ '^SCRAM-SHA-256\$[0-9]+:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+$') is false then
    raise exception 'a password comes as a SCRAM-SHA-256 verifier, or not at all' using errcode = 'TG004';
  end if;
  perform tidegate._may_grant(p_groups, p_owner);
  execute format('create role %I login %s nocreatedb nocreaterole noreplication nobypassrls connection limit %s '
                 'password %L valid until %L', p_name,
                 case when p_inherit then 'inherit' else 'noinherit' end, p_connections, p_verifier, p_until);
  -- The mark is no role to work as: before 16 that cannot be forbidden, and what is done with it is looked for at the end.
  execute format('grant tidegate_sessions to %I', p_name) || case when v16 then ' with inherit false, set false' else '' end;
  foreach member_of in array p_groups loop
    execute format('grant %I to %I', member_of, p_name) || options;
  end loop;
  if p_owner is not null then
    -- The gateway sends role=OWNER at start-up: ALTER ROLE .. SET role is refused inside any security definer function.
    execute format('grant %I to %I', p_owner, p_name) || case when v16 then ' with inherit true, set true' else '' end;
  end if;
  execute format('comment on role %I is %L', p_name,
                 format('tidegate %s lease %s session %s', p_gateway, p_lease, p_session));
  select oid into strict role from pg_roles where rolname = p_name;
  before := tidegate._witness(p_groups, p_owner);
end $$;

-- Group roles come from the literal lists alone, and none may be or become one that could make roles which outlive the
-- session (15 lets CREATEROLE grant itself nearly anything).
create function tidegate._may_grant(p_groups text[], p_owner text) returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  asked text;
  power text;
begin
  foreach asked in array p_groups loop
    if (asked = any (tidegate._groups())) is not true then
      raise exception 'role % is not one that sessions may have here', asked using errcode = 'TG004',
        hint = 'install the output of "tidegate target trust" again';
    end if;
  end loop;
  if p_owner is not null and (p_owner = any (tidegate._owners())) is not true then
    raise exception 'role % is not an owner that sessions may have here', p_owner using errcode = 'TG004',
      hint = 'install the output of "tidegate target trust" again';
  end if;
  with recursive reach (oid) as (
    select oid from pg_roles where rolname = any (p_groups) or rolname = p_owner
    union select m.roleid from pg_auth_members m join reach on m.member = reach.oid)
  select r.rolname into power from pg_roles r join reach using (oid)
   where r.rolsuper or r.rolcreaterole or r.rolreplication or r.rolname = 'tidegate_owner' limit 1;
  if power is not null then
    raise exception 'role % could make roles that outlive the session', power using errcode = 'TG004';
  end if;
  if tidegate._trap() is not null then
    raise exception '%', tidegate._trap() using errcode = 'TG004';
  end if;
end $$;

-- The role that a mint made whose answer we never saw: by name, and only if its comment carries this lease and it has our
-- mark. "ours" is false for anybody else's role of that name.
create function tidegate.find(p_name text, p_lease uuid, out role oid, out ours boolean) returns setof record
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select r.oid, coalesce(shobj_description(r.oid, 'pg_authid') like 'tidegate % lease ' || p_lease::text || ' session %', false)
         and exists (select from pg_auth_members where roleid = 'tidegate_sessions'::regrole and member = r.oid)
    from pg_roles r where r.rolname = p_name
$$;

-- No login any more, by any way. A call of its own, committed before anything else is tried: a cleaning that fails must
-- not leave a working account. Then tidegate_owner becomes a member: that is what lets it clean. The session can hold both
-- rows locked: then this gives up soon, so that the gateway can sever first.
create function tidegate.disable(p_name text, p_oid oid) returns boolean
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '250ms' as $$
declare
  friend record;
begin
  if not tidegate._ours(p_name, p_oid, false) then return false; end if;
  execute format('alter role %I nologin password null connection limit 0 valid until ''-infinity''', p_name);
  execute format('grant %I to tidegate_owner', p_name);
  -- Before 16 a session can make others members of its role, who keep what it may do for as long as the role is there; one
  -- that works as it now (SET ROLE) would go on with that, and so ends.
  for friend in select r.oid, r.rolname from pg_auth_members m join pg_roles r on r.oid = m.member
    where m.roleid = p_oid and r.rolname <> 'tidegate_owner' and r.rolname !~ '^tg[lq]_'
  loop
    execute format('revoke %I from %I', p_name, friend.rolname);
    if exists (select from pg_auth_members where roleid = 'tidegate_sessions'::regrole and member = friend.oid) then
      perform tidegate._end(friend.rolname, friend.oid);
    end if;
  end loop;
  return true;
end $$;

-- Ends its sessions, disabled or not; returns how many backends were still seen. A backend that is only starting up has no
-- user in pg_stat_activity yet, but holds a lock on its database: those are tried too, and PostgreSQL lets us end only what
-- belongs to roles that tidegate_owner is a member of, which is none but disabled session roles.
create function tidegate.sever(p_name text, p_oid oid) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  seen int;
  backend record;
begin
  if not tidegate._ours(p_name, p_oid, false) then return 0; end if;
  seen := tidegate._end(p_name, p_oid);
  for backend in
    select l.pid from pg_locks l
     where l.locktype = 'object' and l.classid = 'pg_database'::regclass and l.pid <> pg_backend_pid()
       and not exists (select from pg_stat_activity a where a.pid = l.pid and a.usesysid is not null)
  loop
    begin
      if pg_terminate_backend(backend.pid) then seen := seen + 1; end if;
    exception when insufficient_privilege then null;
    end;
  end loop;
  return seen;
end $$;
