package sqlite

import (
	"fmt"

	"zombiezen.com/go/sqlite"
)

// row implements engine.Row on a statement that stands on a row.
type row struct{ stmt *sqlite.Stmt }

// Scan implements engine.Row.
func (r row) Scan(dest ...any) error {
	if n := r.stmt.ColumnCount(); n != len(dest) {
		return fmt.Errorf("scan: %d destinations for %d columns", len(dest), n)
	}
	for i, d := range dest {
		switch d := d.(type) {
		case *int64:
			*d = r.stmt.ColumnInt64(i)
		case *string:
			*d = r.stmt.ColumnText(i)
		case *[]byte:
			*d = make([]byte, r.stmt.ColumnLen(i))
			r.stmt.ColumnBytes(i, *d)
		case *bool:
			*d = r.stmt.ColumnBool(i)
		default:
			return fmt.Errorf("scan: column %d into a %T", i+1, d)
		}
	}
	return nil
}
