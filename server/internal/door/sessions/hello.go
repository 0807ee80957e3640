package sessions

// claim is what a Hello asks for, and what stands against it.
type claim struct {
	token bool // it carries a resume token
	// fenced: the token is that of a session that was fenced.
	fenced bool
	// exists: there is a session for the instance id.
	exists bool
	// matches: the token is that of the session.
	matches bool
	// precedes: the token is the one with which the session itself was asked for.
	precedes bool
	// connected: a connection carries the session.
	connected bool
	// lapsed: there is nothing to go on with. Its registration has ended, or there never
	// was one, nor a call.
	lapsed bool
}

// verdict is what becomes of a Hello.
type verdict int

const (
	begin    verdict = iota // a new session
	resume                  // the session goes on after a cut
	handover                // the session moves to this connection
	replace                 // the older session is fenced for good, a new one begins
	renew                   // the session has ended with its registration, a new one begins
	refuse                  // whoever says this Hello was fenced
)

// decide is the rule of who holds an instance id. The latest process to come without
// knowledge of the session is the one that was started last, so it wins; a process that
// presents the token of a session which has since been replaced is the older one.
func decide(c claim) verdict {
	switch {
	case c.token && c.fenced:
		return refuse
	case !c.exists:
		return begin
	case !c.token:
		return replace
	case c.matches && c.lapsed:
		return renew
	case c.matches && c.connected:
		return handover
	case c.matches:
		return resume
	case c.precedes:
		// The answer to its first Hello was lost on the way.
		return replace
	default:
		return refuse
	}
}
