-- What a session leaves behind. The functions run as tidegate_owner, which a disabled role made its member; nothing here
-- runs code that a session wrote, and nothing is dropped with cascade but temporary objects. What is handed over is silenced by
-- the next script.

-- The heir: a role for this lease alone (a shared one would pool privileges; giving to the application's owner let an index
-- function of the session read that owner's secrets at the next ANALYZE). It is a member of the session's role until the
-- end of the calling function, because a new owner needs CREATE on the schema.
create function tidegate._heir(p_name text, p_oid oid) returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  heir constant text := 'tgq_' || substr(p_name, 4);
  whose constant text := 'left by ' || p_name || ': ' || coalesce(shobj_description(p_oid, 'pg_authid'), 'no comment');
begin
  if exists (select from pg_stat_activity where usesysid = p_oid) then
    raise exception '% is still connected', p_name using errcode = 'TG002';
  end if;
  if not exists (select from pg_roles where rolname = heir) then
    execute format('create role %I nologin inherit in role tidegate_quarantine', heir);
    execute format('comment on role %I is %L', heir, whose);
  elsif (select shobj_description(oid, 'pg_authid') = whose and not rolcanlogin and exists (
           select from pg_auth_members m where m.member = r.oid and m.roleid = 'tidegate_quarantine'::regrole)
           from pg_roles r where rolname = heir) is not true then
    raise exception 'there is a role % that we did not make', heir using errcode = 'TG003';
  end if;
  execute format('grant %I to %I', p_name, heir);
  execute format('grant %I to tidegate_owner', heir);
  return heir;
end $$;

create function tidegate._owns_here(p_oid oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
  select exists (select from pg_shdepend where refclassid = 'pg_authid'::regclass and refobjid = p_oid and deptype = 'o'
    and dbid in (0, (select oid from pg_database where datname = current_database())))
$$;

-- The databases that know of the role.
create function tidegate.places(p_oid oid) returns setof text
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
  select distinct d.datname::text from pg_shdepend s join pg_database d on d.oid = s.dbid
   where s.refclassid = 'pg_authid'::regclass and s.refobjid = p_oid
$$;

-- Prepared transactions can be rolled back only outside a function, and only as their owner: the administrator gets the
-- role for that moment, disabled or not (what is prepared may be what keeps it from being disabled). It gets it by way of a
-- new role of a random name: the session could have granted itself to the administrator in what it prepared, and the same
-- grant would wait for that. The names come back quoted, ready to be used.
create function tidegate.lend(p_name text, p_oid oid, out gid text, out database text) returns setof record
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  lender constant text := 'tgl_' || replace(gen_random_uuid()::text, '-', '');
  options constant text :=
    case when current_setting('server_version_num')::int >= 160000 then ' with inherit false, set true' else '' end;
begin
  if not tidegate._ours(p_name, p_oid, false) then return; end if;
  perform tidegate._unlend(p_oid);
  if not exists (select from pg_prepared_xact() where ownerid = p_oid) then return; end if;
  execute format('create role %I nologin noinherit', lender);
  execute format('grant %I to %I', p_name, lender) || options;
  execute format('grant %I to %I', lender, session_user) || options;
  return query select quote_literal(p.gid), d.datname::text
    from pg_prepared_xact() p join pg_database d on d.oid = p.dbid where p.ownerid = p_oid;
end $$;

-- Every lender of the role, also one that a crash left.
create function tidegate._unlend(p_oid oid) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  lender name;
begin
  for lender in select r.rolname from pg_auth_members m join pg_roles r on r.oid = m.member
    where m.roleid = p_oid and r.rolname ~ '^tgl_[0-9a-f]{32}$' and not r.rolcanlogin
  loop
    execute format('drop role %I', lender);
  end loop;
end $$;

create function tidegate.unlend(p_name text, p_oid oid) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
  if not tidegate._ours(p_name, p_oid, false) then return; end if;
  perform tidegate._unlend(p_oid);
end $$;

create function tidegate._kind(p_kind "char") returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select case p_kind when 'a' then 'aggregate' when 'p' then 'procedure' else 'function' end
$$;

-- An aggregate over nothing has a name for that.
create function tidegate._arguments(p_routine oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select case when prokind = 'a' and pronargs = 0 then '*' else pg_get_function_identity_arguments(oid) end
    from pg_proc where oid = p_routine
$$;

create function tidegate._signature(p_routine oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select format('%I.%I(%s)', n.nspname, p.proname, tidegate._arguments(p.oid))
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace where p.oid = p_routine
$$;

-- As ALTER and DROP want it named.
create function tidegate._named(p_class oid, p_object oid, out kind text, out name text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select case i.type when 'statistics object' then 'statistics' when 'foreign-data wrapper' then 'foreign data wrapper' else i.type end,
         case p_class when 'pg_proc'::regclass then tidegate._signature(p_object) else i.identity end
    from pg_identify_object(p_class, p_object, 0) i
$$;

-- A session can make what it owns a member of an extension: that excuses nothing. (What a trusted extension brings along
-- belongs to a superuser, and so is never asked about here.)
create function tidegate._detach(p_class oid, p_object oid) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  member record;
begin
  for member in select e.extname, n.kind, n.name
    from pg_depend d join pg_extension e on e.oid = d.refobjid, tidegate._named(p_class, p_object) n
   where d.classid = p_class and d.objid = p_object and d.deptype = 'e' and d.refclassid = 'pg_extension'::regclass
  loop
    execute format('alter extension %I drop %s %s', member.extname, member.kind, member.name);
  end loop;
end $$;

-- Some of what the role owns in this database, newest first (what hangs on something is younger). Not what goes along with something else: a column's sequence, a range's functions; nor extensions, which ALTER
-- cannot give away and REASSIGN OWNED can.
create function tidegate._owned(p_oid oid, p_max int) returns table (kind text, name text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select n.kind, n.name
    from (select classid, objid from pg_shdepend s
           where s.refclassid = 'pg_authid'::regclass and s.refobjid = p_oid and s.deptype = 'o'
             and s.dbid = (select oid from pg_database where datname = current_database())
             and s.classid not in ('pg_extension'::regclass, 'pg_default_acl'::regclass, 'pg_user_mapping'::regclass)
             and not exists (select from pg_depend d where d.classid = s.classid and d.objid = s.objid and d.objsubid = 0
                   and (d.deptype = 'i' or d.deptype = 'a' and s.classid = 'pg_class'::regclass
                                               and (select relkind = 'S' from pg_class where oid = s.objid)))
           order by objid desc limit p_max) o,
         tidegate._named(o.classid, o.objid) n
$$;

-- Hands at most p_max objects to the heir; returns how many. In batches, because 30,000 objects in one statement run out
-- of lock memory. Schemas first: who owns a schema decides what may be created in it. One that cannot be handed over by its
-- name, or not now, keeps no other from it: clean takes it by its OID, or says why not.
create function tidegate.handover(p_name text, p_oid oid, p_max int) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  heir text;
  thing record;
  moved int := 0;
begin
  if not tidegate._ours(p_name, p_oid, true) or not tidegate._owns_here(p_oid) then return 0; end if;
  perform tidegate._no_trap();
  moved := tidegate._drop_temporary(p_name, p_oid, p_max);
  if moved > 0 then return moved; end if;
  heir := tidegate._heir(p_name, p_oid);
  for thing in select nspname as name from pg_namespace where nspowner = p_oid limit p_max loop
    execute format('alter schema %I owner to %I', thing.name, heir);
    -- The session may have revoked these from itself, as the owner: without them nothing in it can be handed over.
    execute format('grant usage, create on schema %I to %I', thing.name, heir);
    moved := moved + 1;
  end loop;
  -- What is in them comes with the next calls.
  if moved = 0 then
    for thing in select * from tidegate._owned(p_oid, p_max) loop
      begin
        execute format('alter %s %s owner to %I', thing.kind, thing.name, heir);
        moved := moved + 1;
      exception
        when lock_not_available then perform set_config('lock_timeout', '20ms', true);
        when others then
          if sqlstate ~ '^(08|40|53|57|58)' then raise; end if;
      end;
    end loop;
  end if;
  execute format('revoke %I from %I', p_name, heir);
  return moved;
end $$;

-- An event trigger runs its function at our DDL, with our rights. No session may own such a function, by way of any role.
create function tidegate._trap() returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  with recursive reach (oid) as (
    select oid from pg_roles where rolname = any (tidegate._groups() || tidegate._owners())
    union select m.roleid from pg_auth_members m join reach on m.member = reach.oid)
  select format('event trigger %I runs %s, which sessions can change as %s: give the function to a superuser, or disable the trigger',
                t.evtname, tidegate._signature(p.oid), p.proowner::regrole)
    from pg_event_trigger t join pg_proc p on p.oid = t.evtfoid join reach on reach.oid = p.proowner
   where t.evtenabled <> 'D' limit 1
$$;

create function tidegate._no_trap() returns void
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
  trap constant text := tidegate._trap();
begin
  if trap is not null then raise exception '%', trap using errcode = 'TG003'; end if;
end $$;

-- In this database: the rest to the heir, everything silenced, privileges taken back. "more": call again. "locked": try again
-- later; "held": a human must look. Not raised, so that what was done stays done.
create function tidegate.clean(p_name text, p_oid oid, p_max int) returns table (what text, item text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  heir constant text := 'tgq_' || substr(p_name, 4);
  heir_oid oid;
  lines int;
  held text;
  thing record;
begin
  if not tidegate._ours(p_name, p_oid, true) then return; end if;
  if exists (select from pg_stat_activity where usesysid = p_oid) then
    raise exception '% is still connected', p_name using errcode = 'TG002';
  end if;
  perform tidegate._no_trap();
  if tidegate._drop_temporary(p_name, p_oid, p_max) > 0 then
    what := 'more'; item := ''; return next; return;
  end if;
  if tidegate._owns_here(p_oid) then
    heir_oid := tidegate._heir(p_name, p_oid)::regrole;
    begin
      execute format('reassign owned by %I to %I', p_name, heir);
    exception when others then
      held := tidegate._left(heir_oid, 'something that it owns', sqlstate, sqlerrm);
    end;
    execute format('revoke %I from %I', p_name, heir);
  end if;
  -- Also what an earlier, interrupted call handed over.
  select oid into heir_oid from pg_roles where rolname = heir;
  if found then
    perform tidegate._heir(p_name, p_oid);
    -- The session may have revoked these from itself, as the owner: without them no function that has them can be emptied.
    for thing in select quote_ident(n.nspname) || '.' || quote_ident(t.typname) as name
      from pg_type t join pg_namespace n on n.oid = t.typnamespace
     where t.typowner = heir_oid and t.typacl is not null and t.typtype in ('b', 'c', 'd', 'e', 'r')
    loop
      execute format('grant usage on type %s to %I', thing.name, heir);
    end loop;
    return query select * from tidegate._silence_routines(heir_oid, p_max);
    get diagnostics lines = row_count;
    if lines < p_max then
      return query select * from tidegate._silence_rest(heir_oid, p_max);
      get diagnostics lines = row_count;
    end if;
    execute format('revoke %I from %I', p_name, heir);
    if lines >= p_max then
      what := 'more'; item := ''; return next; return;
    end if;
    item := tidegate._locked(heir_oid);
    if item is not null then
      what := 'locked'; return next; return;
    end if;
  end if;
  if held is not null then
    what := 'held'; item := held; return next; return;
  end if;
  perform tidegate._strip(p_name, p_oid);
end $$;

-- What has no owner and hangs on types of the role, or keeps what it owns from being dropped: casts, transforms, extensions.
create function tidegate._unhang(p_oid oid) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  thing record;
begin
  perform tidegate._detach(s.classid, s.objid) from pg_shdepend s
    join pg_depend d on d.classid = s.classid and d.objid = s.objid and d.deptype = 'e'
   where s.refclassid = 'pg_authid'::regclass and s.refobjid = p_oid and s.deptype = 'o'
     and s.dbid = (select oid from pg_database where datname = current_database());
  for thing in
    select format('drop cast (%s as %s)', c.castsource::regtype, c.casttarget::regtype) as sql from pg_cast c
     where exists (select from pg_type t where t.oid in (c.castsource, c.casttarget) and t.typowner = p_oid)
    union all
    select format('drop transform for %s language %I', f.trftype::regtype, l.lanname)
      from pg_transform f join pg_type t on t.oid = f.trftype join pg_language l on l.oid = f.trflang where t.typowner = p_oid
  loop
    execute thing.sql;
  end loop;
end $$;

-- Where the entitlement says "drop": what it owns here goes, and nothing else (restrict): if an object of somebody else
-- hangs on it, PostgreSQL names it and a human decides. At most p_max objects for each call, which returns how many: one
-- that another of them hangs on goes with a later call; with the last, when DROP OWNED knows their order.
create function tidegate.discard(p_name text, p_oid oid, p_max int) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  thing record;
  dropped int := 0;
begin
  if not tidegate._ours(p_name, p_oid, true) then return 0; end if;
  if exists (select from pg_stat_activity where usesysid = p_oid) then
    raise exception '% is still connected', p_name using errcode = 'TG002';
  end if;
  perform tidegate._no_trap();
  dropped := tidegate._drop_temporary(p_name, p_oid, p_max);
  if dropped > 0 then return dropped; end if;
  perform tidegate._unhang(p_oid);
  if (select count(*) from pg_shdepend where refclassid = 'pg_authid'::regclass and refobjid = p_oid and deptype = 'o'
         and dbid = (select oid from pg_database where datname = current_database())) > p_max then
    for thing in select * from tidegate._owned(p_oid, p_max) loop
      begin
        if thing.kind = 'large object' then
          perform lo_unlink(thing.name::oid);
        else
          execute format('drop %s %s restrict', thing.kind, thing.name);
        end if;
        dropped := dropped + 1;
      exception when dependent_objects_still_exist then null;
      end;
    end loop;
    if dropped > 0 then return dropped; end if;
  end if;
  execute format('drop owned by %I restrict', p_name);
  perform tidegate._strip(p_name, p_oid);
  return 0;
end $$;

-- The role itself, and its heir if that owns nothing.
create function tidegate.remove(p_name text, p_oid oid) returns void
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  heir constant text := 'tgq_' || substr(p_name, 4);
  heir_oid oid;
  dangling record;
begin
  if not tidegate._ours(p_name, p_oid, true) then return; end if;
  if exists (select from pg_stat_activity where usesysid = p_oid) then
    raise exception '% is still connected', p_name using errcode = 'TG002';
  end if;
  if exists (select from pg_prepared_xact() where ownerid = p_oid) then
    raise exception '% has a prepared transaction left', p_name using errcode = 'TG002';
  end if;
  perform tidegate._unlend(p_oid);
  -- Before 16 DROP ROLE leaves memberships that the role granted to others, with a grantor that no longer exists.
  if current_setting('server_version_num')::int < 160000 then
    for dangling in select roleid::regrole as granted, member::regrole as receiver from pg_auth_members
      where grantor = p_oid and p_oid not in (roleid, member)
    loop
      execute format('revoke %s from %s', dangling.granted, dangling.receiver);
    end loop;
  end if;
  execute format('drop role %I', p_name);
  select r.oid into heir_oid from pg_roles r join pg_auth_members m on m.member = r.oid
   where r.rolname = heir and m.roleid = 'tidegate_quarantine'::regrole
     and shobj_description(r.oid, 'pg_authid') like 'left by ' || p_name || ': %';
  if not found then return; end if;
  if exists (select from pg_shdepend where refclassid = 'pg_authid'::regclass and refobjid = heir_oid) then
    execute format('revoke %I from tidegate_owner', heir);
  else
    execute format('drop role %I', heir);
  end if;
end $$;
