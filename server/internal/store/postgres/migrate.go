package postgres

import (
	"context"
	"embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"telford.dev/telford/server/internal/store/engine"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrationLock is the key of the advisory lock under which one process at a time
// changes the schema: "telford" in ASCII.
const migrationLock = 0x74656c666f7264

// migrate brings the schema up to date in one transaction.
func migrate(ctx context.Context, c *pgx.Conn, steps []engine.Migration, now time.Time) error {
	t, err := c.BeginTx(ctx, pgx.TxOptions{
		BeginQuery: "begin isolation level read committed read write; set local lock_timeout = '15s'",
	})
	if err != nil {
		return translate(err)
	}
	defer func() { _ = t.Rollback(context.WithoutCancel(ctx)) }()
	run := func(query string, args ...any) {
		if err == nil {
			_, err = t.Exec(ctx, query, append([]any{pgx.QueryExecModeExec}, args...)...)
		}
	}
	run("select pg_advisory_xact_lock($1)", int64(migrationLock))
	var exists bool
	if err == nil {
		err = t.QueryRow(ctx, "select exists (select from pg_namespace where nspname = $1)", pgx.QueryExecModeExec, schema).Scan(&exists)
	}
	if !exists {
		run("create schema " + schema)
	}
	run("set local search_path = " + schema)
	run("create table if not exists schema_migrations (version bigint primary key, name text not null, applied_at bigint not null)")
	if err != nil {
		return translate(err)
	}
	applied, err := applied(ctx, t)
	if err != nil {
		return fmt.Errorf("read the schema version: %w", translate(err))
	}
	pending, err := engine.Pending("the database", steps, applied)
	if err != nil || (exists && len(pending) == 0) {
		return err
	}
	for _, m := range pending {
		if _, err := t.Exec(ctx, m.SQL); err != nil {
			return fmt.Errorf("migration %04d_%s: %w", m.Version, m.Name, translate(err))
		}
		run("insert into schema_migrations (version, name, applied_at) values ($1, $2, $3)", m.Version, m.Name, engine.Micros(now))
		if err != nil {
			return fmt.Errorf("migration %04d_%s: %w", m.Version, m.Name, translate(err))
		}
	}
	return translate(t.Commit(ctx))
}

func applied(ctx context.Context, t pgx.Tx) ([]engine.Migration, error) {
	rows, err := t.Query(ctx, "select version, name from schema_migrations order by version", pgx.QueryExecModeExec)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(r pgx.CollectableRow) (m engine.Migration, err error) {
		err = r.Scan(&m.Version, &m.Name)
		return m, err
	})
}
