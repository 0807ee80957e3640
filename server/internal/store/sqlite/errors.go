package sqlite

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"zombiezen.com/go/sqlite"

	"telford.dev/telford/server/internal/tx"
)

// errRefused: the disk refused a write, as opposed to a read or a sync.
var errRefused = errors.New("the disk refused a write")

// translate turns an error of the driver into one of tx, or into a text that names
// the file and the way out. No error of the driver leaves the package.
func translate(path string, err error) error {
	if err == nil {
		return nil
	}
	code := sqlite.ErrCode(err)
	switch code.ToPrimary() {
	case sqlite.ResultFull:
		return fmt.Errorf("%w: %s: free some space; what was acknowledged is safe", tx.ErrFull, path)
	case sqlite.ResultReadOnly:
		return fmt.Errorf("%w: %s (%s)", tx.ErrReadOnly, path, code)
	case sqlite.ResultBusy, sqlite.ResultLocked:
		return fmt.Errorf("%w: another process keeps %s locked (%s): end it", tx.ErrUnavailable, path, code)
	case sqlite.ResultConstraint:
		if code == sqlite.ResultConstraintUnique || code == sqlite.ResultConstraintPrimaryKey {
			return fmt.Errorf("%w: %s", tx.ErrExists, err.Error())
		}
		return fmt.Errorf("database %s: %s", path, err.Error())
	case sqlite.ResultNotADB:
		return fmt.Errorf("database %s is not an SQLite database (%s): "+
			"restore it from a backup, or move it away to start empty", path, code)
	case sqlite.ResultCorrupt:
		return fmt.Errorf("database %s is damaged (%s): "+
			"restore it from a backup, or save what can be read with: sqlite3 %s .recover", path, code, path)
	case sqlite.ResultCantOpen, sqlite.ResultPerm, sqlite.ResultAuth:
		return fmt.Errorf("database %s cannot be opened (%s): this user needs the right to write the file and its directory", path, code)
	case sqlite.ResultIOErr:
		if code == sqlite.ResultIOErrWrite {
			return fmt.Errorf("database %s: %w (%s): see the log of the operating system", path, errRefused, code)
		}
		return fmt.Errorf("database %s: the disk failed (%s): see the log of the operating system", path, code)
	}
	return fmt.Errorf("database %s: %s", path, err.Error())
}

// orFull finds out why the disk refused a write. SQLite reports only ENOSPC as "full";
// a quota or a limit on file sizes looks like a broken disk.
func orFull(path string, err error) error {
	if errors.Is(err, errRefused) && outOfSpace(path) {
		return translate(path, sqlite.ResultFull.ToError())
	}
	return err
}

// outOfSpace writes a file of its own at the offset where the database or its log
// failed to grow.
func outOfSpace(path string) bool {
	var end int64
	for _, suffix := range []string{"", "-wal"} {
		if info, err := os.Stat(path + suffix); err == nil {
			end = max(end, info.Size())
		}
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".probe-*")
	if err != nil {
		return full(err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.WriteAt(make([]byte, 64<<10), end)
	return full(errors.Join(err, f.Sync(), f.Close()))
}

func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
