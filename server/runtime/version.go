package runtime

import (
	"runtime"
	"runtime/debug"
)

// version is set when a release is linked: -ldflags "-X …/server/runtime.version=v1.2.3".
var version = "devel"

// Build says how this binary was made.
type Build struct {
	Version string `json:"version"`
	// Commit is the revision of the source, with "+modified" when it was changed since;
	// empty when the Go tool did not record it.
	Commit    string `json:"commit"`
	GoVersion string `json:"go_version"`
	// Platform is operating system and architecture, such as "linux/amd64".
	Platform string `json:"platform"`
}

// BuildInfo returns how this binary was made.
func BuildInfo() Build {
	b := Build{Version: version, GoVersion: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	modified := ""
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				modified = "+modified"
			}
		}
	}
	if b.Commit != "" {
		b.Commit += modified
	}
	return b
}

// String is the build for people, on one line.
func (b Build) String() string {
	s := b.Version
	if b.Commit != "" {
		s += " " + b.Commit
	}
	return s + " " + b.GoVersion + " " + b.Platform
}
