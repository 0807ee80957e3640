package runtime

import (
	"fmt"
	"io"
	"log/slog"
)

// NewLogger returns the logger that the settings LogLevel and LogFormat ask for. Both
// must be valid; unknown values count as info and text.
func (c Config) NewLogger(w io.Writer) *slog.Logger {
	c = c.withDefaults()
	level, err := parseLevel(c.LogLevel)
	if err != nil {
		level = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

func parseLevel(name string) (slog.Level, error) {
	switch name {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	default:
		return 0, fmt.Errorf("%q is none of debug, info, warn, error", name)
	}
}
