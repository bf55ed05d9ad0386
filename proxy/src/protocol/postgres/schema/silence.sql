-- What an heir got keeps its data and its columns, and nothing that runs: not when somebody looks at it in good faith, a superuser
-- least of all. Called by tidegate.clean.

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

-- What the routines of sessions said, for whoever wants one back. They themselves are emptied.
create table if not exists tidegate_attic.routine (
  put_away timestamptz not null default now(),
  heir name not null,
  was text not null,
  is_now text not null,
  definition text
);

-- Nothing that the session wrote may run with anybody's rights: routines are emptied and become SECURITY INVOKER, nobody may
-- execute them, and they move to a schema that is on no search_path. Emptied, because a superuser needs no EXECUTE: who
-- looks into a view that a session left would else run its functions. One of a trigger lets every row pass: it may be on
-- somebody else's table, and cannot go without taking the trigger along.
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
           coalesce(p.proacl, acldefault('f', p.proowner)) as acl, l.lanname not in ('c', 'internal') as has_text
      from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
     where p.proowner = p_heir and n.nspname <> 'tidegate_attic' and n.nspname !~ '^pg_temp_'
       and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid
                          and d.deptype = 'i')
     limit p_max
  loop
    perform tidegate._detach(routine.oid);
    renamed := 'r_' || md5(random()::text || routine.oid);
    insert into tidegate_attic.routine (heir, was, is_now, definition) values (p_heir::regrole::text, routine.signature,
      renamed, case when routine.prokind <> 'a' then pg_get_functiondef(routine.oid) end);
    if routine.has_text then
      execute tidegate._emptied(routine.oid);
    end if;
    if routine.prosecdef then
      execute format('alter %s %s security invoker', routine.kind, routine.signature);
    end if;
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

-- The statement that takes everything out of a routine but its signature.
create function tidegate._emptied(p_routine oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select format('create or replace %s %I.%I(%s) %s language plpgsql as %L', tidegate._kind(p.prokind), n.nspname, p.proname,
                pg_get_function_arguments(p.oid), 'returns ' || pg_get_function_result(p.oid),
                case p.prorettype
                  when 'trigger'::regtype then 'begin if tg_op = ''DELETE'' then return old; end if; return new; end'
                  else 'begin raise exception ''put away by tidegate: its text is in tidegate_attic.routine''; end' end)
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace where p.oid = p_routine
$$;

-- Whether an expression, as PostgreSQL prints it, calls more than what cannot do anything: what is built in and immutable, the
-- clock, a sequence. A superuser who writes to a table that a session left runs its defaults and checks, and what is built in
-- can write files. What looks like a call inside of a literal counts as one.
create function tidegate._runs(p_text text) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
  select exists (
    select from regexp_matches(p_text, '([[:alnum:]_.$"]+)\(', 'g') m
     where m[1] <> all (array['nextval', 'now', 'gen_random_uuid', 'length', 'concat', 'format', 'timezone', 'date', 'to_char',
             'to_date', 'to_timestamp', 'date_trunc', 'date_part', 'age', 'COALESCE', 'GREATEST', 'LEAST', 'NULLIF', 'ROW',
             'EXTRACT', 'OVERLAY', 'POSITION', 'SUBSTRING', 'TRIM', 'CURRENT_TIMESTAMP', 'CURRENT_TIME', 'LOCALTIMESTAMP',
             'LOCALTIME', 'varying'])
       and (select bool_and(provolatile = 'i') from pg_proc
             where proname = m[1] and pronamespace = 'pg_catalog'::regnamespace) is not true)
$$;

-- Defaults, checks and policies of the heir that call something, with what takes them off.
create function tidegate._calling(p_heir oid) returns table (name text, off text, definition text)
language sql stable set search_path = pg_catalog, pg_temp as $$
  with relation (oid, name, kind) as (
    select oid, oid::regclass::text, case relkind when 'v' then 'view' when 'f' then 'foreign table' else 'table' end
      from pg_class where relowner = p_heir and relkind in ('r', 'p', 'f', 'v') and relpersistence <> 't'
  ), calling (name, off, definition) as (
    select format('default of %s.%I', r.name, a.attname), format('alter %s %s alter column %I drop default', r.kind, r.name, a.attname),
           pg_get_expr(d.adbin, d.adrelid)
      from pg_attrdef d join relation r on r.oid = d.adrelid join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
     where a.attgenerated = ''
    union all
    select format('check %I of %s', k.conname, r.name), format('alter %s %s drop constraint %I', r.kind, r.name, k.conname),
           pg_get_constraintdef(k.oid)
      from pg_constraint k join relation r on r.oid = k.conrelid where k.contype = 'c' and k.coninhcount = 0
    union all
    select format('policy %I of %s', p.polname, r.name), format('drop policy %I on %s', p.polname, r.name),
           concat_ws(' with check ', pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
      from pg_policy p join relation r on r.oid = p.polrelid
    union all
    select format('default of domain %s', t.oid::regtype), format('alter domain %s drop default', t.oid::regtype),
           pg_get_expr(t.typdefaultbin, 0)
      from pg_type t where t.typtype = 'd' and t.typowner = p_heir and t.typdefaultbin is not null
    union all
    select format('check %I of domain %s', k.conname, t.oid::regtype), format('alter domain %s drop constraint %I', t.oid::regtype, k.conname),
           pg_get_constraintdef(k.oid)
      from pg_constraint k join pg_type t on t.oid = k.contypid where k.contype = 'c' and t.typowner = p_heir
  )
  select * from calling c where tidegate._runs(c.definition)
$$;

create function tidegate._silence_expressions(p_heir oid, p_max int) returns table (what text, item text)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  thing record;
begin
  for thing in select * from tidegate._calling(p_heir) limit p_max loop
    item := thing.name;
    begin
      execute thing.off;
      insert into tidegate_attic.routine (heir, was, is_now, definition)
        values (p_heir::regrole::text, thing.name, 'taken off', thing.definition);
      what := 'taken off, its text is in tidegate_attic.routine';
    exception when insufficient_privilege or dependent_objects_still_exist or object_not_in_prerequisite_state
                or wrong_object_type or invalid_table_definition or feature_not_supported or undefined_object then
      what := 'left as it was, which holds the lease';
    end;
    return next;
  end loop;
end $$;

create function tidegate._silence_rest(p_heir oid, p_max int) returns table (what text, item text)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  thing record;
begin
  for thing in select o.oid::regoperator::text as name from pg_operator o join pg_namespace n on n.oid = o.oprnamespace
    where o.oprowner = p_heir and n.nspname <> 'tidegate_attic' and n.nspname !~ '^pg_temp_'
      and obj_description(o.oid, 'pg_operator') is distinct from 'put away' limit p_max
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
        execute format('comment on operator %s is ''put away''', thing.name);
        what := 'left in place, without its function';
      end;
    end;
    item := 'operator ' || thing.name; return next;
  end loop;
  -- A superuser who looks into a view runs what it says, built-in functions at least: only its columns stay, and its text
  -- where those of routines are.
  for thing in select c.oid, c.oid::regclass::text as name, (select string_agg(format('null::%s as %I',
      format_type(a.atttypid, a.atttypmod), a.attname), ', ' order by a.attnum) from pg_attribute a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns
    from pg_class c where c.relowner = p_heir and c.relkind = 'v' and c.relpersistence <> 't'
     and not exists (select from tidegate_attic.routine r where r.is_now = 'view ' || c.oid) limit p_max
  loop
    insert into tidegate_attic.routine (heir, was, is_now, definition)
      values (p_heir::regrole::text, thing.name, 'view ' || thing.oid, pg_get_viewdef(thing.oid));
    begin
      execute format('create or replace view %s as select %s', thing.name, thing.columns);
      what := 'emptied, its text is in tidegate_attic.routine';
    exception when others then
      what := 'left as it was: nobody should look into it as a superuser';
    end;
    item := 'view ' || thing.name; return next;
  end loop;
  -- Only tables know how to switch these off; the functions are empty anyway.
  for thing in select distinct c.oid::regclass::text as name from pg_trigger t join pg_class c on c.oid = t.tgrelid
    where c.relowner = p_heir and c.relkind in ('r', 'p', 'f') and c.relpersistence <> 't' and not t.tgisinternal
      and t.tgenabled <> 'D' limit p_max
  loop
    execute format('alter table %s disable trigger user', thing.name);
    what := 'triggers off'; item := thing.name; return next;
  end loop;
  for thing in select c.oid::regclass::text as name, w.rulename from pg_rewrite w join pg_class c on c.oid = w.ev_class
    where c.relowner = p_heir and c.relkind in ('r', 'p') and c.relpersistence <> 't'
      and w.rulename <> '_RETURN' and w.ev_enabled <> 'D' limit p_max
  loop
    execute format('alter table %s disable rule %I', thing.name, thing.rulename);
    what := 'rule off'; item := thing.name; return next;
  end loop;
  -- A subscription has a process of its own, which goes on by itself.
  for thing in select quote_ident(subname) as name from pg_subscription
    where subowner = p_heir and subenabled and subdbid = (select oid from pg_database where datname = current_database())
  loop
    execute format('alter subscription %s disable', thing.name);
    what := 'disabled'; item := 'subscription ' || thing.name; return next;
  end loop;
end $$;
