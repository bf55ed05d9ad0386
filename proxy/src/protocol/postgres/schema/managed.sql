-- In place of the functions that a superuser owns, where nobody is one (managed services): as far as tidegate_owner can, being
-- a member of the role that it ends. What it cannot is said, and the role stays disabled.

-- Ends the sessions of a session's role. Up to 15 a role may give and take memberships of itself, and so can put this off for
-- as long as it holds the row locked.
create function tidegate._end(p_name text, p_oid oid) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp set lock_timeout = '250ms' as $$
declare
  seen int := 0;
  backend record;
begin
  if (p_name ~ '^tg_[a-z0-9_]{1,27}$') is not true
    or exists (select from pg_roles where oid = p_oid and rolname = p_name and not rolsuper) is not true
    or exists (select from pg_auth_members where roleid = 'tidegate_sessions'::regrole and member = p_oid) is not true then
    raise exception '% is not a session role', p_name using errcode = 'TG001';
  end if;
  if not pg_has_role('tidegate_owner', p_oid, 'usage') then
    execute format('grant %I to tidegate_owner', p_name);
  end if;
  for backend in select pid from pg_stat_activity where usesysid = p_oid loop
    perform pg_terminate_backend(backend.pid);
    seen := seen + 1;
  end loop;
  return seen;
end $$;

-- What other owners granted to the role only they, or a superuser, can take back.
create function tidegate._strip(p_name text, p_oid oid) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  membership record;
  parted text[] := '{}';
  back text;
  kept text;
begin
  if not tidegate._ours(p_name, p_oid, true) then return; end if;
  if exists (select from pg_shdepend where refclassid = 'pg_authid'::regclass and refobjid = p_oid and deptype = 'o'
    and dbid in (0, (select oid from pg_database where datname = current_database()))
    and classid not in ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)) then
    raise exception '% still owns objects in %', p_name, current_database() using errcode = 'TG003';
  end if;
  for membership in
    select roleid::regrole as granted, case when current_setting('server_version_num')::int < 160000 then ''
           else format(' with inherit %s, set %s', coalesce(to_jsonb(m) ->> 'inherit_option', 'true'),
                       coalesce(to_jsonb(m) ->> 'set_option', 'true')) end as options
      from pg_auth_members m where member = p_oid and roleid <> 'tidegate_sessions'::regrole
  loop
    execute format('revoke %s from %I', membership.granted, p_name);
    parted := parted || format('grant %s to %I%s', membership.granted, p_name, membership.options);
  end loop;
  execute format('drop owned by %I restrict', p_name);
  foreach back in array parted loop
    execute back;
  end loop;
  select string_agg(pg_describe_object(classid, objid, objsubid), ', ') into kept from pg_shdepend
   where refclassid = 'pg_authid'::regclass and refobjid = p_oid and deptype <> 'o'
     and dbid = (select oid from pg_database where datname = current_database());
  if kept is not null then
    raise exception '% has rights in % that others granted, and only they can take back: %', p_name, current_database(),
      left(kept, 200) using errcode = 'TG003';
  end if;
end $$;

-- Schemas of temporary objects are a superuser's. PostgreSQL's own autovacuum drops what crashed backends left in them.
create function tidegate._drop_temporary(p_name text, p_oid oid, p_max int) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  if exists (select from pg_shdepend s, pg_identify_object(s.classid, s.objid, 0) i
     where s.refclassid = 'pg_authid'::regclass and s.refobjid = p_oid and s.deptype = 'o' and i.schema ~ '^pg_temp_[0-9]+$'
       and s.dbid = (select oid from pg_database where datname = current_database())) then
    raise exception '% left temporary objects in %: waiting for autovacuum', p_name, current_database() using errcode = 'TG002';
  end if;
  return 0;
end $$;

-- pg_authid is a superuser's: attributes are compared, and a changed password of a role that the session could become is
-- not seen.
create function tidegate._role_rows(p_oids oid[]) returns table (kind text, line text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select 'passwords', 'cannot be compared without a superuser'
  union all
  select 'roles', format('%s: %s', rolname, jsonb_build_array(rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,
         rolreplication, rolbypassrls, rolconnlimit, rolvaliduntil)) from pg_roles where oid = any (p_oids)
$$;
