create database shop;
create database stock;
create role shop_reader nologin;
create role shop_writer nologin;
create role shop_owner nologin;
\connect shop
create schema app authorization shop_owner;
grant usage on schema app to shop_reader, shop_writer;
grant create on schema app, public to shop_writer;
create table app.orders (id int);
alter table app.orders owner to shop_owner;
grant select on app.orders to shop_reader;
grant select, insert, trigger, references on app.orders to shop_writer;
