-- Last: who may call what. tidegate_owner may no longer create here, the administrator only calls.
revoke create on schema tidegate from tidegate_owner;
revoke all on all functions in schema tidegate from public;
grant execute on function tidegate._end, tidegate._strip, tidegate._drop_temporary, tidegate._role_rows to tidegate_owner;
grant usage on schema tidegate to :"admin";
grant execute on function tidegate.version, tidegate.mint, tidegate.find, tidegate.disable, tidegate.sever, tidegate.lend,
  tidegate.unlend, tidegate.places, tidegate.handover, tidegate.clean, tidegate.discard, tidegate.remove, tidegate.inspect, tidegate.prepared, tidegate.marked, tidegate.server
  to :"admin";
