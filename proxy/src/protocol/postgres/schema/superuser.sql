-- The four functions that a superuser owns, for what nobody else can do. Only tidegate_owner may call them. Their checks are
-- written out: what runs as superuser calls nothing that tidegate_owner could replace.

-- Ends the sessions of a session's role, disabled or not: it can lock its own row and so put off ALTER ROLE, and take
-- tidegate_owner's membership away. A function of this kind, because pg_signal_backend would reach everybody's sessions.
create function tidegate._end(p_name text, p_oid oid) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  seen int := 0;
  backend record;
begin
  if (p_name ~ '^tg_[a-z0-9_]{1,27}$') is not true
    or exists (select from pg_roles where oid = p_oid and rolname = p_name and not rolsuper) is not true
    or exists (select from pg_auth_members where roleid = 'tidegate_sessions'::regrole and member = p_oid) is not true then
    raise exception '% is not a session role', p_name using errcode = 'TG001';
  end if;
  for backend in select pid from pg_stat_activity where usesysid = p_oid loop
    perform pg_terminate_backend(backend.pid);
    seen := seen + 1;
  end loop;
  return seen;
end $$;

-- DROP OWNED by anyone else silently leaves privileges that other owners granted to the role.
create function tidegate._strip(p_name text, p_oid oid) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  membership record;
  parted text[] := '{}';
  back text;
begin
  if (p_name ~ '^tg_[a-z0-9_]{1,27}$') is not true
    or exists (select from pg_roles where oid = p_oid and rolname = p_name and not rolcanlogin and not rolsuper) is not true
    or exists (select from pg_auth_members where roleid = 'tidegate_sessions'::regrole and member = p_oid) is not true then
    raise exception '% is not a disabled session role', p_name using errcode = 'TG001';
  end if;
  -- What is left is privileges, default privileges and user mappings: DROP OWNED would drop anything else.
  if exists (select from pg_shdepend where refclassid = 'pg_authid'::regclass and refobjid = p_oid and deptype = 'o'
    and dbid in (0, (select oid from pg_database where datname = current_database()))
    and classid not in ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)) then
    raise exception '% still owns objects in %', p_name, current_database() using errcode = 'TG003';
  end if;
  -- What it granted on is taken back only while nothing else gives it the right to grant: so, for the moment, it is a
  -- member of nothing but our mark.
  for membership in
    select roleid::regrole as granted, case when current_setting('server_version_num')::int >= 160000
           then format(' granted by %s', grantor::regrole) else '' end as terms
      from pg_auth_members where member = p_oid and roleid <> 'tidegate_sessions'::regrole
  loop
    execute format('revoke %s from %I%s', membership.granted, p_name, membership.terms);
    parted := parted || format('grant %s to %I%s', membership.granted, p_name, membership.terms);
  end loop;
  execute format('drop owned by %I restrict', p_name);
  -- Other databases may still have to be cleaned with them.
  foreach back in array parted loop
    execute back;
  end loop;
end $$;

-- Temporary objects that a crashed backend left behind: REASSIGN OWNED fails on them, having no rights on pg_temp_N.
create function tidegate._drop_temporary(p_name text, p_oid oid) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  thing record;
begin
  if (p_name ~ '^tg_[a-z0-9_]{1,27}$') is not true
    or exists (select from pg_roles where oid = p_oid and rolname = p_name and not rolcanlogin and not rolsuper) is not true
    or exists (select from pg_auth_members where roleid = 'tidegate_sessions'::regrole and member = p_oid) is not true
    or exists (select from pg_stat_activity where usesysid = p_oid) then
    raise exception '% is not a disabled and severed session role', p_name using errcode = 'TG001';
  end if;
  for thing in
    select i.type, i.identity from pg_shdepend s, pg_identify_object(s.classid, s.objid, 0) i
     where s.refclassid = 'pg_authid'::regclass and s.refobjid = p_oid and s.deptype = 'o' and i.schema ~ '^pg_temp_[0-9]+$'
       and s.dbid = (select oid from pg_database where datname = current_database())
  loop
    execute format('drop %s if exists %s cascade', thing.type, thing.identity);
  end loop;
end $$;

-- What a session could change of roles that it could become, as lists of lines to compare: their rows in pg_authid (xmin
-- changes with every ALTER ROLE, passwords included, and is no secret), memberships that such a role granted or could
-- grant, default privileges (they survive everything else that teardown does), privileges that it gave on as a group,
-- settings of it and of its databases. The gateway's own roles come and go: left out. What the owner does with its own is
-- what the session is for. "transaction" tells what is younger than the session.
create function tidegate._witness(p_groups text[], p_owner text) returns jsonb
language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
  with recursive reach (oid) as (
    select oid from pg_authid where rolname = any (p_groups) or rolname = p_owner
    union select m.roleid from pg_auth_members m join reach on m.member = reach.oid
  ), owners (oid) as (
    select oid from pg_authid where rolname = p_owner
    union select m.roleid from pg_auth_members m join owners on m.member = owners.oid
  ), ours (oid) as (
    select oid from pg_authid where rolname in ('tidegate_sessions', 'tidegate_quarantine', 'tidegate_owner')
    union select member from pg_auth_members where roleid in ('tidegate_sessions'::regrole, 'tidegate_quarantine'::regrole)
  ), acls (what, acl) as (
    select 'relation ' || oid::regclass, relacl from pg_class where relacl is not null
    union all select format('column %s of %s', attname, attrelid::regclass), attacl from pg_attribute where attacl is not null
    union all select 'routine ' || oid::regprocedure, proacl from pg_proc where proacl is not null
    union all select 'schema ' || oid::regnamespace, nspacl from pg_namespace where nspacl is not null
    union all select 'type ' || oid::regtype, typacl from pg_type where typacl is not null
    union all select 'database ' || datname, datacl from pg_database where datacl is not null
    union all select 'server ' || srvname, srvacl from pg_foreign_server where srvacl is not null
  ), lines (kind, line) as (
    select 'server', system_identifier::text from pg_control_system()
    union all select 'transaction', pg_current_xact_id()::text
    union all select 'roles', format('%s at transaction %s', rolname, a.xmin) from pg_authid a join reach using (oid)
    union all select 'memberships', format('%s in %s, granted by %s', member::regrole, roleid::regrole, grantor::regrole)
      from pg_auth_members
     where (grantor in (select oid from reach)
            or roleid in (select m.roleid from pg_auth_members m join reach on reach.oid = m.member where m.admin_option))
       and member not in (select oid from ours) and roleid not in (select oid from ours)
    union all select 'default privileges', format('%s for role %s in schema %s: %s', defaclobjtype, defaclrole::regrole,
                case defaclnamespace when 0 then '(any)' else defaclnamespace::regnamespace::text end, defaclacl)
      from pg_default_acl join reach on reach.oid = defaclrole
    union all select 'privileges given on', format('%s on %s to %s, granted by %s', x.privilege_type, what,
                case x.grantee when 0 then 'public' else x.grantee::regrole::text end, x.grantor::regrole)
      from acls, aclexplode(acl) x
     where x.grantor in (select oid from reach) and x.grantor not in (select oid from owners) and x.grantor <> x.grantee
       and x.grantee not in (select oid from ours)
    union all select 'settings', format('%s %s: %s', case setrole when 0 then '' else setrole::regrole::text end,
                'in database ' || d.datname, setconfig)
      from pg_db_role_setting left join pg_database d on d.oid = setdatabase
     where setrole in (select oid from reach) or setrole = 0 and d.datdba in (select oid from reach)
  ), kinds (kind) as (
    select unnest(array['server', 'transaction', 'roles', 'memberships', 'default privileges', 'privileges given on', 'settings'])
  )
  select jsonb_object_agg(k.kind, t.said)
    from kinds k, lateral (
      select case when count(*) <= 300 then coalesce(jsonb_agg(left(line, 300) order by line), '[]')
                  else jsonb_build_array(format('%s lines, digest %s', count(*), md5(string_agg(line, chr(10) order by line)))) end
        from lines l where l.kind = k.kind) t (said)
$$;
