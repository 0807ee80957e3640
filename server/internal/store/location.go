package store

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
)

// The kinds of engine.
const (
	kindSQLite   = "sqlite"
	kindPostgres = "postgres"
)

// fileName is the database in a data directory.
const fileName = "telford.db"

// location is where a store lives.
type location struct {
	kind string
	file string   // of SQLite, absolute
	dirs []string // to lock, absolute
}

// parse understands Config.URL and Config.Data.
func parse(database, data string) (location, error) {
	var where location
	if data != "" {
		abs, err := filepath.Abs(data)
		if err != nil {
			return where, fmt.Errorf("data directory %q: %w", data, err)
		}
		data = abs
		where.dirs = append(where.dirs, data)
	}
	scheme, rest, _ := strings.Cut(database, ":")
	switch {
	case database == "" && data == "":
		return where, errors.New("no data directory and no database given")
	case database == "":
		where.file = filepath.Join(data, fileName)
	case (scheme == "postgres" || scheme == "postgresql") && strings.HasPrefix(rest, "//"):
		where.kind = kindPostgres
		return where, nil
	case scheme == "sqlite" || scheme == "file":
		where.file = strings.TrimPrefix(rest, "//")
	case strings.Contains(database, "://"):
		return where, fmt.Errorf("database %q: want a path, sqlite:PATH or postgres://USER@HOST/NAME", redact(database))
	default:
		where.file = database
	}
	if where.file == "" || strings.HasSuffix(where.file, ":memory:") || strings.ContainsAny(where.file, "?#\x00") {
		return where, fmt.Errorf("database %q: want the path of a file", database)
	}
	where.kind = kindSQLite
	if !filepath.IsAbs(where.file) {
		if data == "" {
			return where, fmt.Errorf("database %q is relative and no data directory is given", database)
		}
		where.file = filepath.Join(data, where.file)
	}
	if dir := filepath.Dir(where.file); dir != data {
		where.dirs = append(where.dirs, dir)
	}
	return where, nil
}

// redact takes the password out of a URL.
func redact(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		scheme, _, _ := strings.Cut(text, "://")
		return scheme + "://…"
	}
	return u.Redacted()
}
