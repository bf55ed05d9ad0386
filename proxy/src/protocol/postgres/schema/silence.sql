-- What an heir got keeps its data and its columns, and nothing that runs: not when somebody looks at it in good faith, a superuser
-- least of all. Called by tidegate.clean. Each thing by itself: one that cannot be silenced stops nothing else, and inspect shows it
-- for as long as it says something.

-- What the routines of sessions said, and all else that was taken off, for whoever wants it back. While a cleaning is under way
-- also what it could not do, so that it is tried once and the rest gets its turn.
create table if not exists tidegate_attic.routine (
  put_away timestamptz not null default now(),
  heir name not null,
  was text not null,
  is_now text not null,
  definition text
);

-- Notes that this thing is left for now, and says so. What passes by itself (PostgreSQL appendix A: connection, rollback, resources,
-- operator, system) goes up: then all of it is tried again.
create function tidegate._left(p_heir oid, p_thing text, p_code text, p_cause text) returns text
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
begin
  if p_code ~ '^(08|40|53|57|58)' then raise exception '%', p_cause using errcode = p_code; end if;
  -- Another session may hold very much locked: only the first is waited for.
  if p_code = '55P03' then perform set_config('lock_timeout', '20ms', true); end if;
  insert into tidegate_attic.routine (heir, was, is_now, definition)
    values (p_heir::regrole::text, p_thing, case p_code when '55P03' then 'locked' else 'left as it was' end, p_cause);
  return case p_code when '55P03' then 'locked by somebody' else 'left as it was: ' || p_cause end;
end $$;

create function tidegate._is_left(p_heir oid, p_thing text) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
  select exists (select from tidegate_attic.routine
                  where heir = p_heir::regrole::text and was = p_thing and is_now in ('left as it was', 'locked'))
$$;

-- What is locked, when a cleaning has tried everything; the next attempt begins anew.
create function tidegate._locked(p_heir oid) returns text
language sql volatile set search_path = pg_catalog, pg_temp as $$
  with noted as (delete from tidegate_attic.routine where heir = p_heir::regrole::text and is_now in ('left as it was', 'locked')
                 returning was, is_now)
  select string_agg(was, ', ') from noted where is_now = 'locked'
$$;

-- What a routine of a session says from now on.
create function tidegate._nothing(p_trigger boolean) returns text
language sql immutable set search_path = pg_catalog, pg_temp as $$
  select case when p_trigger then 'begin if tg_op = ''DELETE'' then return old; end if; return new; end'
              else 'begin raise exception ''put away by tidegate: its text is in tidegate_attic.routine''; end' end
$$;

-- The heir's routines, and whether they say nothing. An aggregate has no text of its own. What only a superuser can write (in
-- C) has none that we could take out.
create function tidegate._routines(p_heir oid) returns table (routine oid, place name, name text, is_empty boolean)
language sql stable set search_path = pg_catalog, pg_temp as $$
  select p.oid, n.nspname, format('%s %s', tidegate._kind(p.prokind), tidegate._signature(p.oid)), p.prokind = 'a'
         or l.lanname = 'plpgsql' and p.prosrc = tidegate._nothing(p.prorettype = 'trigger'::regtype)
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace join pg_language l on l.oid = p.prolang
   where p.proowner = p_heir and n.nspname !~ '^pg_temp_'
     and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'i')
$$;

-- Nothing that the session wrote may run with anybody's rights: routines are emptied and become SECURITY INVOKER, nobody may
-- execute them, and they move to a schema that is on no search_path. Emptied, because a superuser needs no EXECUTE: who
-- looks into a view that a session left would else run its functions. One of a trigger lets every row pass: it may be on
-- somebody else's table, and cannot go without taking the trigger along. What cannot be emptied is put away all the same. Bodies are not checked: one whose
-- parameters PL/pgSQL does not take says that instead when it is called.
create function tidegate._silence_routines(p_heir oid, p_max int) returns table (what text, item text)
language plpgsql volatile set search_path = pg_catalog, pg_temp set check_function_bodies = off as $$
declare
  loud record;
  renamed text;
begin
  for loud in select * from tidegate._routines(p_heir) r
    where not (r.is_empty and r.place = 'tidegate_attic') and not tidegate._is_left(p_heir, 'routine ' || r.routine) limit p_max
  loop
    item := loud.name;
    renamed := 'r_' || md5(random()::text || loud.routine);
    insert into tidegate_attic.routine (heir, was, is_now, definition)
      select p_heir::regrole::text, tidegate._signature(oid), renamed, case when prokind <> 'a' then pg_get_functiondef(oid) end
        from pg_proc where oid = loud.routine;
    begin
      if not loud.is_empty then
        execute tidegate._emptied(loud.routine);
      end if;
      what := 'emptied';
    exception when others then
      what := tidegate._left(p_heir, 'routine ' || loud.routine, sqlstate, sqlerrm);
    end;
    return next;
    begin
      perform tidegate._put_away(loud.routine, renamed);
      what := 'put away as ' || renamed;
    exception when others then
      what := tidegate._left(p_heir, 'routine ' || loud.routine, sqlstate, sqlerrm);
    end;
    return next;
  end loop;
end $$;

-- The statement that takes everything out of a routine but its signature.
create function tidegate._emptied(p_routine oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select format('create or replace %s %I.%I(%s) %s%s language plpgsql as %L', tidegate._kind(p.prokind), n.nspname, p.proname,
                pg_get_function_arguments(p.oid), 'returns ' || pg_get_function_result(p.oid),
                case p.prokind when 'w' then ' window' else '' end, tidegate._nothing(p.prorettype = 'trigger'::regtype))
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace where p.oid = p_routine
$$;

-- By its name alone as soon as it is the only one of that name: types of its arguments may be in schemas that are shut by now.
create function tidegate._put_away(p_routine oid, p_renamed text) returns void
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  routine record;
  renamed text;
  grantee oid;
begin
  perform tidegate._detach('pg_proc'::regclass, p_routine);
  select n.nspname, p.prokind, p.prosecdef, coalesce(p.proacl, acldefault('f', p.proowner)) as acl,
         case when (select count(*) from pg_proc o where o.proname = p.proname and o.pronamespace = p.pronamespace) = 1
              then format('routine %I.%I', n.nspname, p.proname)
              else format('%s %s', tidegate._kind(p.prokind), tidegate._signature(p.oid)) end as name
    into strict routine from pg_proc p join pg_namespace n on n.oid = p.pronamespace where p.oid = p_routine;
  execute format('alter %s rename to %I', routine.name, p_renamed);
  renamed := format('routine %I.%I', routine.nspname, p_renamed);
  if routine.prosecdef then
    execute format('alter %s security invoker', renamed);
  end if;
  for grantee in select distinct a.grantee from aclexplode(routine.acl) a loop
    execute format('revoke all on %s from %s cascade', renamed,
      case grantee when 0 then 'public' else (select quote_ident(rolname) from pg_roles where oid = grantee) end);
  end loop;
  if routine.nspname <> 'tidegate_attic' then
    execute format('alter %s set schema tidegate_attic', renamed);
  end if;
end $$;

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

-- Whether a view gives nothing but nulls of its columns' types: its query has no part that an emptied one has not, and calls
-- nothing but what makes a null as long as its type. What names look like only makes it look fuller.
create function tidegate._is_empty_view(p_view oid) returns boolean
language sql stable set search_path = pg_catalog, pg_temp as $$
  select not exists (
    select from pg_rewrite w, regexp_matches(w.ev_action::text, '\{([A-Z_]+)( :funcid ([0-9]+))?', 'g') m
     where w.ev_class = p_view and w.rulename = '_RETURN'
       and (m[1] <> all (array['QUERY', 'FROMEXPR', 'TARGETENTRY', 'CONST', 'COLLATE', 'COLLATEEXPR', 'COERCETODOMAIN', 'RELABELTYPE',
                               'ARRAYCOERCEEXPR', 'CASETESTEXPR', 'FUNCEXPR', 'RTE', 'RANGETBLENTRY', 'ALIAS'])
            or m[1] = 'FUNCEXPR' and m[3]::oid not in (select castfunc from pg_cast where castsource = casttarget)))
$$;

-- A view's columns, as nulls.
create function tidegate._nulls(p_view oid) returns text
language sql stable set search_path = pg_catalog, pg_temp as $$
  select string_agg(format('null::%s%s as %I', format_type(a.atttypid, a.atttypmod),
                           case when a.attcollation <> t.typcollation then ' collate ' || a.attcollation::regcollation end, a.attname),
                    ', ' order by a.attnum)
    from pg_attribute a join pg_type t on t.oid = a.atttypid where a.attrelid = p_view and a.attnum > 0 and not a.attisdropped
$$;

-- What the heir has that says something, with what takes that off; where a second statement is there, it is for when the attic
-- has one of that name. A superuser who looks into a view, or writes to it or to a table, runs what view, rule, trigger, default or
-- check say, built-in functions at least. Only tables know how to switch rules and triggers off. A subscription has a process of
-- its own. Whoever reads a foreign table goes where its server says, as whom a user mapping says.
create function tidegate._calling(p_heir oid) returns table (thing text, name text, off text, or_else text, definition text)
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin return query
  with relation (oid, name, kind) as (
    select oid, oid::regclass::text, case relkind when 'v' then 'view' when 'f' then 'foreign table' else 'table' end
      from pg_class where relowner = p_heir and relkind in ('r', 'p', 'f', 'v') and relpersistence <> 't'
  ), expression (name, off, definition) as (
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
  ), calling (thing, name, off, or_else, definition) as (
    select 'routine ' || r.routine, r.name, tidegate._emptied(r.routine), null, pg_get_functiondef(r.routine)
      from tidegate._routines(p_heir) r where not r.is_empty
    union all
    select null, 'view ' || r.name, format('create or replace view %s as select %s', r.name, tidegate._nulls(r.oid)), null, pg_get_viewdef(r.oid)
      from relation r where r.kind = 'view' and not tidegate._is_empty_view(r.oid)
    union all
    select null, format('rule %I of %s', w.rulename, r.name),
           format(case r.kind when 'view' then 'drop rule %1$I on %2$s' else 'alter table %2$s disable rule %1$I' end, w.rulename, r.name),
           null, pg_get_ruledef(w.oid)
      from pg_rewrite w join relation r on r.oid = w.ev_class where w.rulename <> '_RETURN' and w.ev_enabled <> 'D'
    union all
    select null, format('trigger %I of %s', t.tgname, r.name),
           format(case r.kind when 'view' then 'drop trigger %1$I on %2$s' else 'alter table %2$s disable trigger %1$I' end, t.tgname, r.name),
           null, pg_get_triggerdef(t.oid)
      from pg_trigger t join relation r on r.oid = t.tgrelid where not t.tgisinternal and t.tgenabled <> 'D'
    union all
    select null, e.name, e.off, null, e.definition from expression e where tidegate._runs(e.definition)
    union all
    select null, 'subscription ' || subname, format('alter subscription %I disable', subname), null, null
      from pg_subscription where subowner = p_heir and subenabled
       and subdbid = (select oid from pg_database where datname = current_database())
    union all
    select null, format('user mapping for %s of server %I', m.usename, m.srvname),
           format('drop user mapping for %s server %I', case m.umuser when 0 then 'public' else quote_ident(m.usename) end, m.srvname),
           null, 'its options, which may hold a password, are not kept'
      from pg_user_mappings m join pg_foreign_server s on s.oid = m.srvid where s.srvowner = p_heir
    union all
    select null, 'operator ' || o.oid::regoperator, format('alter operator %s set schema tidegate_attic', o.oid::regoperator),
           format('drop operator %s restrict', o.oid::regoperator), null
      from pg_operator o join pg_namespace n on n.oid = o.oprnamespace
     where o.oprowner = p_heir and n.nspname <> 'tidegate_attic' and n.nspname !~ '^pg_temp_'
  )
  select coalesce(c.thing, c.name), c.name, c.off, c.or_else, c.definition from calling c;
end $$;

create function tidegate._silence_rest(p_heir oid, p_max int) returns table (what text, item text)
language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
  loud record;
begin
  for loud in select * from tidegate._calling(p_heir) c where not tidegate._is_left(p_heir, c.thing) limit p_max loop
    item := loud.name;
    begin
      begin
        execute loud.off;
      exception when unique_violation then
        if loud.or_else is null then raise; end if;
        execute loud.or_else;
      end;
      insert into tidegate_attic.routine (heir, was, is_now, definition)
        values (p_heir::regrole::text, loud.name, 'taken off', loud.definition);
      what := 'taken off, its text is in tidegate_attic.routine';
    exception when others then
      what := tidegate._left(p_heir, loud.thing, sqlstate, sqlerrm);
    end;
    return next;
  end loop;
end $$;
