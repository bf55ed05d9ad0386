-- What a session leaves behind. The functions run as tidegate_owner, which a disabled role made its member; nothing here
-- runs code that a session wrote, and nothing is dropped with cascade but temporary objects.

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

-- Hands at most about p_max objects of each kind to the heir; returns how many. In batches, because 30,000 views in one
-- statement ran out of lock memory. Schemas first: who owns a schema decides what may be created in it.
create function tidegate.handover(p_name text, p_oid oid, p_max int) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  heir text;
  thing record;
  moved int := 0;
begin
  if not tidegate._ours(p_name, p_oid, true) or not tidegate._owns_here(p_oid) then return 0; end if;
  heir := tidegate._heir(p_name, p_oid);
  for thing in select nspname as name from pg_namespace where nspowner = p_oid limit p_max loop
    execute format('alter schema %I owner to %I', thing.name, heir);
    -- The session may have revoked these from itself, as the owner: without them nothing in it can be handed over.
    execute format('grant usage, create on schema %I to %I', thing.name, heir);
    moved := moved + 1;
  end loop;
  -- What is in them comes with the next calls.
  if moved > 0 then
    execute format('revoke %I from %I', p_name, heir);
    return moved;
  end if;
  for thing in
    (select format('%s %s', case c.relkind when 'S' then 'sequence' when 'v' then 'view' when 'm' then 'materialized view'
                            when 'f' then 'foreign table' else 'table' end, c.oid::regclass) as name
       from pg_class c
      where c.relowner = p_oid and c.relpersistence <> 't' and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
        and not exists (select from pg_depend d where c.relkind = 'S' and d.classid = 'pg_class'::regclass
                           and d.objid = c.oid and d.deptype in ('a', 'i')) limit p_max)
    union all
    (select format('%s %s', tidegate._kind(p.prokind), tidegate._signature(p.oid))
       from pg_proc p join pg_namespace n on n.oid = p.pronamespace
      where p.proowner = p_oid and n.nspname !~ '^pg_temp_'
        and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid
                           and d.deptype = 'i') limit p_max)
    union all
    (select format('large object %s', oid) from pg_largeobject_metadata where lomowner = p_oid limit p_max)
  loop
    execute format('alter %s owner to %I', thing.name, heir);
    moved := moved + 1;
  end loop;
  execute format('revoke %I from %I', p_name, heir);
  return moved;
end $$;

create function tidegate._kind(p_kind "char") returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select case p_kind when 'a' then 'aggregate' when 'p' then 'procedure' else 'function' end
$$;

create function tidegate._signature(p_routine oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace where p.oid = p_routine
$$;

-- A session can make its function a member of an extension: that excuses nothing. (What a trusted extension brings along
-- belongs to a superuser, and so is never asked about here.)
create function tidegate._detach(p_routine oid) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  member record;
begin
  for member in select e.extname, tidegate._kind(p.prokind) as kind, tidegate._signature(p.oid) as signature
    from pg_depend d join pg_extension e on e.oid = d.refobjid join pg_proc p on p.oid = d.objid
   where d.classid = 'pg_proc'::regclass and d.objid = p_routine and d.deptype = 'e'
     and d.refclassid = 'pg_extension'::regclass
  loop
    execute format('alter extension %I drop %s %s', member.extname, member.kind, member.signature);
  end loop;
end $$;

-- Nothing that the session wrote may run with anybody's rights by accident: routines become SECURITY INVOKER, nobody may
-- execute them, and they move to a schema that is on no search_path. A trigger's function on somebody else's table cannot
-- go without taking the trigger along: it is emptied.
create function tidegate._silence_routines(p_heir oid, p_max int) returns table (what text, item text)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  routine record;
  grantee oid;
  renamed text;
begin
  for routine in
    select p.oid, n.nspname, tidegate._kind(p.prokind) as kind, tidegate._signature(p.oid) as signature, p.prosecdef,
           p.prokind, p.proargtypes::oid[] as argument_types, pg_get_function_identity_arguments(p.oid) as arguments,
           coalesce(p.proacl, acldefault('f', p.proowner)) as acl,
           p.prorettype = 'trigger'::regtype and exists (select from pg_trigger t join pg_class c on c.oid = t.tgrelid
             where t.tgfoid = p.oid and c.relowner <> p_heir) as fires_elsewhere
      from pg_proc p join pg_namespace n on n.oid = p.pronamespace
     where p.proowner = p_heir and n.nspname <> 'tidegate_attic' and n.nspname !~ '^pg_temp_'
       and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid
                          and d.deptype = 'i')
     limit p_max
  loop
    perform tidegate._detach(routine.oid);
    if routine.prosecdef then
      execute format('alter %s %s security invoker', routine.kind, routine.signature);
    end if;
    if routine.fires_elsewhere then
      execute format('create or replace function %s returns trigger language plpgsql as %L', routine.signature,
                     'begin if tg_op = ''DELETE'' then return old; end if; return new; end');
      what := 'emptied, it fires on a table of another role'; item := routine.signature; return next;
    end if;
    renamed := 'r_' || md5(random()::text || routine.oid);
    execute format('alter %s %s rename to %I', routine.kind, routine.signature, renamed);
    -- By OIDs of types: REVOKE does not know the ORDER BY of an ordered-set aggregate's arguments.
    for grantee in select distinct a.grantee from aclexplode(routine.acl) a loop
      execute format('revoke all on routine %I.%I(%s) from %s cascade', routine.nspname, renamed,
        case when routine.prokind = 'a' then (select string_agg(format_type(t, null), ',') from unnest(routine.argument_types) t)
             else routine.arguments end,
        case grantee when 0 then 'public' else (select quote_ident(rolname) from pg_roles where oid = grantee) end);
    end loop;
    execute format('alter %s %I.%I(%s) set schema tidegate_attic', routine.kind, routine.nspname, renamed, routine.arguments);
    what := 'put away'; item := format('%s %s as %s', routine.kind, routine.signature, renamed); return next;
  end loop;
end $$;

create function tidegate._silence_rest(p_heir oid) returns table (what text, item text)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  thing record;
begin
  for thing in select o.oid::regoperator::text as name from pg_operator o join pg_namespace n on n.oid = o.oprnamespace
    where o.oprowner = p_heir and n.nspname <> 'tidegate_attic' and n.nspname !~ '^pg_temp_'
  loop
    what := 'put away';
    begin
      execute format('alter operator %s set schema tidegate_attic', thing.name);
    exception when unique_violation then
      -- An operator cannot be renamed, and the attic has one like it. It is nothing without its function, put away above.
      begin
        execute format('drop operator %s restrict', thing.name);
        what := 'dropped';
      exception when dependent_objects_still_exist then
        what := 'left in place, without its function';
      end;
    end;
    item := 'operator ' || thing.name; return next;
  end loop;
  -- Only tables know how to switch these off. A view's act with its owner's rights, and that is the heir, who has none.
  for thing in select distinct c.oid::regclass::text as name from pg_trigger t join pg_class c on c.oid = t.tgrelid
    where c.relowner = p_heir and c.relkind in ('r', 'p', 'f') and c.relpersistence <> 't' and not t.tgisinternal and t.tgenabled <> 'D'
  loop
    execute format('alter table %s disable trigger user', thing.name);
    what := 'triggers off'; item := thing.name; return next;
  end loop;
  for thing in select c.oid::regclass::text as name, w.rulename from pg_rewrite w join pg_class c on c.oid = w.ev_class
    where c.relowner = p_heir and c.relkind in ('r', 'p') and c.relpersistence <> 't' and w.rulename <> '_RETURN' and w.ev_enabled <> 'D'
  loop
    execute format('alter table %s disable rule %I', thing.name, thing.rulename);
    what := 'rule off'; item := thing.name; return next;
  end loop;
end $$;

-- In this database: the rest to the heir, everything silenced, privileges taken back. "more": call again.
create function tidegate.clean(p_name text, p_oid oid, p_max int) returns table (what text, item text)
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  heir constant text := 'tgq_' || substr(p_name, 4);
  heir_oid oid;
  lines int;
begin
  if not tidegate._ours(p_name, p_oid, true) then return; end if;
  if exists (select from pg_stat_activity where usesysid = p_oid) then
    raise exception '% is still connected', p_name using errcode = 'TG002';
  end if;
  perform tidegate._drop_temporary(p_name, p_oid);
  if tidegate._owns_here(p_oid) then
    perform tidegate._heir(p_name, p_oid);
    execute format('reassign owned by %I to %I', p_name, heir);
    execute format('revoke %I from %I', p_name, heir);
  end if;
  -- Also what an earlier, interrupted call handed over.
  select oid into heir_oid from pg_roles where rolname = heir;
  if found then
    perform tidegate._heir(p_name, p_oid);
    return query select * from tidegate._silence_routines(heir_oid, p_max);
    get diagnostics lines = row_count;
    if lines < p_max then return query select * from tidegate._silence_rest(heir_oid); end if;
    execute format('revoke %I from %I', p_name, heir);
    if lines >= p_max then
      what := 'more'; item := ''; return next; return;
    end if;
  end if;
  perform tidegate._strip(p_name, p_oid);
end $$;

-- Where the entitlement says "drop": all that it owns here goes, and nothing else (restrict): if an object of somebody else
-- hangs on it, PostgreSQL names it and a human decides.
create function tidegate.discard(p_name text, p_oid oid) returns int
language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
  owned int;
begin
  if not tidegate._ours(p_name, p_oid, true) then return 0; end if;
  if exists (select from pg_stat_activity where usesysid = p_oid) then
    raise exception '% is still connected', p_name using errcode = 'TG002';
  end if;
  perform tidegate._drop_temporary(p_name, p_oid);
  perform tidegate._detach(oid) from pg_proc where proowner = p_oid;
  select count(*) into owned from pg_shdepend where refclassid = 'pg_authid'::regclass and refobjid = p_oid
    and deptype = 'o' and dbid = (select oid from pg_database where datname = current_database());
  execute format('drop owned by %I restrict', p_name);
  perform tidegate._strip(p_name, p_oid);
  return owned;
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
