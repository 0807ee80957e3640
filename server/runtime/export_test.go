package runtime

// BreakDoor makes the port of a door fail as if the system had taken it away.
func BreakDoor(r *Runtime, door string) {
	for _, l := range r.built.listeners {
		if l.door == door {
			_ = l.Listener.Close()
		}
	}
}
