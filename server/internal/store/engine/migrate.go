package engine

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Migration is one step of the schema. Steps are never changed once released and
// never undone.
type Migration struct {
	Version int64
	Name    string
	SQL     string
}

// Migrations reads the steps of an engine: files named NNNN_name.sql, numbered from 1
// without a gap.
func Migrations(fsys fs.FS, dir string) ([]Migration, error) {
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("read the migrations: %w", err)
	}
	var steps []Migration
	for _, e := range entries {
		number, name, ok := strings.Cut(strings.TrimSuffix(e.Name(), ".sql"), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if !ok || err != nil || path.Ext(e.Name()) != ".sql" {
			return nil, fmt.Errorf("migration %q: want NNNN_name.sql", e.Name())
		}
		text, err := fs.ReadFile(fsys, path.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read migration %q: %w", e.Name(), err)
		}
		steps = append(steps, Migration{Version: version, Name: name, SQL: string(text)})
	}
	slices.SortFunc(steps, func(a, b Migration) int { return int(a.Version - b.Version) })
	for i, m := range steps {
		if m.Version != int64(i+1) {
			return nil, fmt.Errorf("migration %04d_%s: want number %04d", m.Version, m.Name, i+1)
		}
	}
	return steps, nil
}

// Pending returns the steps that a database still needs, given those that it has
// (version and name, in order of version). It refuses a database of a newer or of a
// foreign schema; where names that database in the error.
func Pending(where string, steps, applied []Migration) ([]Migration, error) {
	if n := len(applied); n > len(steps) {
		return nil, fmt.Errorf("%s has schema version %d (%s), this program knows versions up to %d: "+
			"run the newer program that wrote it, or restore a backup from before the upgrade",
			where, applied[n-1].Version, applied[n-1].Name, len(steps))
	}
	for i, a := range applied {
		if a.Version != steps[i].Version || a.Name != steps[i].Name {
			return nil, fmt.Errorf("%s has schema step %d %q where this program has %d %q: "+
				"it belongs to another program or to a build that was never released",
				where, a.Version, a.Name, steps[i].Version, steps[i].Name)
		}
	}
	return steps[len(applied):], nil
}
