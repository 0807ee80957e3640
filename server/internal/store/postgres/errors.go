package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"telford.dev/telford/server/internal/tx"
)

var errCommitRollback = pgx.ErrTxCommitRollback

// translate turns an error of the driver into one of tx, or into a text that says
// what to do. No error of the driver leaves the package.
func translate(err error) error {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &pg):
		return translateServer(pg)
	case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled):
		return fmt.Errorf("%w: no answer in time: %s", tx.ErrUnavailable, err.Error())
	}
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		// The text of the driver names host, user and database, never the password.
		return fmt.Errorf("%w: %s: is it running, and may this user connect?", tx.ErrUnavailable, err.Error())
	}
	return fmt.Errorf("%w: the connection was lost: %s", tx.ErrUnavailable, err.Error())
}

func translateServer(pg *pgconn.PgError) error {
	text := fmt.Sprintf("%s (SQLSTATE %s)", pg.Message, pg.Code)
	if pg.Detail != "" {
		text += ": " + pg.Detail
	}
	switch pg.Code {
	case "23505": // unique_violation
		return fmt.Errorf("%w: %s", tx.ErrExists, text)
	case "53100": // disk_full
		return fmt.Errorf("%w: %s: free some space on the database server; what was acknowledged is safe", tx.ErrFull, text)
	case "25006": // read_only_sql_transaction
		return fmt.Errorf("%w: %s", tx.ErrReadOnly, text)
	case "22021", "22P05": // character_not_in_repertoire, untranslatable_character
		return fmt.Errorf("%w: %s", tx.ErrInvalid, text)
	case "40001", "40P01", "55P03", "57014": // conflicts and timeouts that outlasted the retries
		return fmt.Errorf("%w: %s", tx.ErrBusy, text)
	case "53300": // too_many_connections
		return fmt.Errorf("%w: %s: raise max_connections, or lower pool_max_conns in the URL", tx.ErrUnavailable, text)
	case "42501": // insufficient_privilege
		return fmt.Errorf("%s: grant this user CREATE on the database, or create the schema %q for it", text, schema)
	case "28P01", "28000", "3D000": // invalid_password, invalid_authorization, invalid_catalog_name
		return fmt.Errorf("%s: check user, password and database name of the URL", text)
	}
	switch class := pg.Code[:min(2, len(pg.Code))]; {
	case class == "08", pg.Code == "57P01", pg.Code == "57P02", pg.Code == "57P03", pg.Code == "57P05", pg.Code == "25P03":
		return fmt.Errorf("%w: %s", tx.ErrUnavailable, text)
	}
	return errors.New(text)
}
