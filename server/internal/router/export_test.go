package router

// Endpoints is the number of instances that the router keeps something of.
func (r *Router) Endpoints() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.endpoints)
}

var Nearest = nearest
