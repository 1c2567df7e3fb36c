-- Roles of the database of views, made once by the image's superuser: `ledger` owns the database and writes the views,
-- `ledger_reader` may read the schema `ledger` (docs/operate/postgresql.md), and `grafana` is one of its members.
-- Passwords come from the environment (psql's \getenv).
\getenv ledger_password RESOLUTION_LEDGER_DATABASE_PASSWORD
\getenv grafana_password RESOLUTION_LEDGER_DATABASE_READER_PASSWORD

CREATE ROLE ledger LOGIN PASSWORD :'ledger_password';
CREATE ROLE ledger_reader;
CREATE ROLE grafana LOGIN PASSWORD :'grafana_password' IN ROLE ledger_reader;
ALTER ROLE grafana SET statement_timeout = '60s';
CREATE DATABASE ledger OWNER ledger;
REVOKE ALL ON DATABASE ledger FROM PUBLIC;
GRANT CONNECT ON DATABASE ledger TO ledger_reader;

-- Readers may not take advisory locks, which the ledger's processes use to choose the writer of a view, and may not
-- store large objects.
\connect ledger
DO $$
DECLARE
  one regprocedure;
BEGIN
  FOR one IN
    SELECT oid FROM pg_proc
    WHERE pronamespace = 'pg_catalog'::regnamespace AND (proname LIKE 'pg\_%advisory%' OR proname LIKE 'lo\_%')
  LOOP
    EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', one);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO ledger', one);
  END LOOP;
END
$$;
