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

-- Temporary objects that a crashed backend left behind, at most p_max of them; returns how many. REASSIGN OWNED fails on
-- them, having no rights on pg_temp_N. Not what goes along with something else: a column's sequence. One that a session made a
-- member of an extension is none any more.
create function tidegate._drop_temporary(p_name text, p_oid oid, p_max int) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  thing record;
  extension name;
  dropped int := 0;
  kept text;
begin
  if (p_name ~ '^tg_[a-z0-9_]{1,27}$') is not true
    or exists (select from pg_roles where oid = p_oid and rolname = p_name and not rolcanlogin and not rolsuper) is not true
    or exists (select from pg_auth_members where roleid = 'tidegate_sessions'::regrole and member = p_oid) is not true
    or exists (select from pg_stat_activity where usesysid = p_oid) then
    raise exception '% is not a disabled and severed session role', p_name using errcode = 'TG001';
  end if;
  for thing in
    select s.classid, s.objid, case i.type when 'statistics object' then 'statistics' else i.type end as kind,
           coalesce((select format('%I.%I(%s)', i.schema, p.proname, case when p.prokind = 'a' and p.pronargs = 0 then '*'
                                   else pg_get_function_identity_arguments(p.oid) end)
                       from pg_proc p where s.classid = 'pg_proc'::regclass and p.oid = s.objid), i.identity) as name
      from pg_shdepend s, pg_identify_object(s.classid, s.objid, 0) i
     where s.refclassid = 'pg_authid'::regclass and s.refobjid = p_oid and s.deptype = 'o' and i.schema ~ '^pg_temp_[0-9]+$'
       and s.dbid = (select oid from pg_database where datname = current_database())
       and not exists (select from pg_depend d where d.classid = s.classid and d.objid = s.objid and d.objsubid = 0 and d.deptype = 'i')
     limit p_max
  loop
    begin
      for extension in select e.extname from pg_depend d join pg_extension e on e.oid = d.refobjid
        where d.classid = thing.classid and d.objid = thing.objid and d.deptype = 'e' and d.refclassid = 'pg_extension'::regclass
      loop
        execute format('alter extension %I drop %s %s', extension, thing.kind, thing.name);
      end loop;
      execute format('drop %s if exists %s cascade', thing.kind, thing.name);
      dropped := dropped + 1;
    exception when others then
      if sqlstate ~ '^(08|40|53|57|58)' or sqlstate = '55P03' then raise; end if;
      kept := format('%s %s: %s', thing.kind, thing.name, sqlerrm);
    end;
  end loop;
  if dropped = 0 and kept is not null then
    raise exception 'a temporary object of a crashed backend cannot be dropped: %', kept using errcode = 'TG003';
  end if;
  return dropped;
end $$;

-- Of the roles that a session could become: xmin changes with every ALTER ROLE, passwords included, and is no secret.
create function tidegate._role_rows(p_oids oid[]) returns table (kind text, line text)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select 'roles', format('%s at transaction %s', rolname, xmin) from pg_authid where oid = any (p_oids)
$$;
