package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// schema is where all tables are, so that the database may hold others' tables too.
const schema = "telford"

// minVersion is server_version_num of the oldest server that is supported.
const minVersion = 150000

// The settings travel with BEGIN, in the same round trip, and end with the
// transaction: a pooler in transaction mode hands out another session each time.
const (
	settings = "; set local search_path = " + schema +
		"; set local statement_timeout = '10s'" +
		"; set local idle_in_transaction_session_timeout = '10s'" +
		"; set local tcp_user_timeout = '30s'"
	beginRead  = "begin isolation level repeatable read read only" + settings
	beginWrite = "begin isolation level read committed read write" + settings + "; set local lock_timeout = '5s'"
)

func (db *DB) beginWrite() string {
	if db.syncCommit == "on" {
		return beginWrite + "; set local synchronous_commit = on"
	}
	return beginWrite + "; set local synchronous_commit = remote_apply"
}

// poolConfig reads the URL and adds what every connection must have.
func poolConfig(cfg Config) (*pgxpool.Config, error) {
	pc, err := pgxpool.ParseConfig(cfg.URL)
	if err != nil {
		// The text of the driver hides the password.
		return nil, fmt.Errorf("database URL: %s: want postgres://USER:PASSWORD@HOST:PORT/NAME", err.Error())
	}
	if !strings.Contains(cfg.URL, "pool_max_conns") {
		pc.MaxConns = maxConns
	}
	cc := pc.ConnConfig
	if cc.RuntimeParams["application_name"] == "" {
		cc.RuntimeParams["application_name"] = "telford"
	}
	if cc.ConnectTimeout == 0 {
		cc.ConnectTimeout = 5 * time.Second
	}
	if cc.ValidateConnect == nil {
		cc.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	dialer := &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 4},
		ControlContext:  control,
	}
	cc.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := dialer.DialContext(ctx, network, addr)
		if err == nil && cfg.wrap != nil {
			nc = cfg.wrap(nc)
		}
		return nc, err
	}
	pc.AfterConnect = checkServer
	return pc, nil
}

// describe names the database in errors, without credentials.
func describe(pc *pgxpool.Config) string {
	cc := pc.ConnConfig
	return fmt.Sprintf("PostgreSQL at %s:%d, database %q", cc.Host, cc.Port, cc.Database)
}

// checkServer refuses a server that could lose what it acknowledged. It looks at each
// new connection, since a server may come back with other settings.
func checkServer(ctx context.Context, c *pgx.Conn) error {
	var version int
	var text, fsync, pages string
	err := c.QueryRow(ctx, `select current_setting('server_version_num')::int, current_setting('server_version'),
		current_setting('fsync'), current_setting('full_page_writes')`,
		pgx.QueryExecModeExec).Scan(&version, &text, &fsync, &pages)
	switch {
	case err != nil:
		return translate(err)
	case version < minVersion:
		return fmt.Errorf("the server is PostgreSQL %s: at least 15 is needed", text)
	case fsync != "on":
		return errors.New("the server runs with fsync=off and may lose what it acknowledged: set fsync = on and restart it")
	case pages != "on":
		return errors.New("the server runs with full_page_writes=off and may lose what it acknowledged: set full_page_writes = on")
	}
	return nil
}
