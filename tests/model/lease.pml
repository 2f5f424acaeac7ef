/*
 * One workset, its lease, its attempts, and the daemons that want it.
 *
 * The item in DynamoDB carries a version (grows with every write), a fence (grows with every claim)
 * and a beat. Conditions on them are equalities, and the numbers never come back, so the model
 * keeps no numbers: beside every snapshot stands one bit, "the item was not written since" (`cur`)
 * or "was not claimed since" (`fok`). That makes the state space finite without a bound on
 * heartbeats, claims, crashes or restarts.
 *
 * A daemon is a set of atomic steps that interleave freely. A request stays in `op` until its
 * answer came; it may arrive more than once (its answer got lost and it is repeated under the same
 * nonce) or, when its sender died or let go, at any later time (`late`). What a daemon knows is its
 * view (`vphase`, `vatt`, `vasked`), which may be out of date whenever `cur` is false.
 *
 * Time is in three marks. `trusted`: the holder's trust (time before the request + TTL - margin)
 * still runs. `watch`: a contender has seen this beat (1), for a whole TTL (2). `aged`: the TTL has
 * run out over a claim that was applied but not answered. The only rule between them is the one the
 * margin buys: 2 is reached only after the trust ended.
 *
 * Variants and mutants are chosen by -D; README.md lists them, check.py runs them.
 */

#ifndef DAEMONS
#define DAEMONS 2
#endif
#define ATTEMPTS 2
#ifndef LAUNCHES
#define LAUNCHES 1              /* launch requests of one attempt on their way at once */
#endif
#define NOBODY DAEMONS

#ifdef PAUSE                    /* stopped between looking at its trust and acting (SIGSTOP) */
#define may_act(d) (D[d].hold && D[d].op == NONE)
#else
#define may_act(d) (D[d].hold && D[d].op == NONE && D[d].trusted)
#endif

#ifdef QUIET_PHASE              /* a quiet phase without faults may begin at any time */
bool quiet = false;
bool alone = false;             /* in it, daemon 0 is the only one left */
#define FAULTY (!quiet)
#define alive(d) (!alone || (d) == 0)
#define unanswered_for_ttl(d) (!quiet || !D[d].mine)
#else
#define FAULTY true
#define alive(d) true
#define unanswered_for_ttl(d) true
#endif

mtype:phase = { ABSENT, READY, RUNNING, GIVING_UP, CANCELING, COMPLETE, FAILED, CANCELED }
mtype:op = { NONE, BEAT, CLAIM, RELEASE, START, EXIT_0, EXIT_1, ENDED_LOST, GIVE_UP, NEXT, STOP,
             STOPPED, CANCEL_NOW, RESTART }
mtype:token = { FREE, STARTED, REVOKED }
mtype:job = { NOT_SEEN, LIVE, LEFT_0, LEFT_1, LOST, KILLED }

/* ---- the item ---- */
mtype:phase phase = ABSENT;
byte att = 0;
byte owner = NOBODY;
bool asked = false;             /* a cancel lies in the inbox */
bool seen = false;              /* the cancel's command id is among the seen ones */
#define final (phase == COMPLETE || phase == FAILED || phase == CANCELED)

/* ---- the attempts: token, job, launch requests on their way; index 0 is not used ---- */
mtype:token token[ATTEMPTS + 1] = FREE;
mtype:job job[ATTEMPTS + 1] = NOT_SEEN;
byte flying[ATTEMPTS + 1] = 0;
bool recorded[ATTEMPTS + 1] = false;
byte live = 0;
#define proof(a) (job[a] == LEFT_0 || job[a] == LEFT_1 || job[a] == LOST || job[a] == KILLED)
#define gone(a) (token[a] == REVOKED || proof(a))

/* A rule is kept so that the invariants hold. Mutants are tried without the rules, and those that
   lead to two live jobs without the other invariants: breaking a rule must do harm in the end. */
#if defined(HARM_ONLY) || defined(DOUBLE_RUN_ONLY)
#define rule(x) skip
#else
#define rule(x) assert(x)
#endif
#ifdef DOUBLE_RUN_ONLY
#define invariant(x) skip
#else
#define invariant(x) assert(x)
#endif

/* ---- the doorbell's messages: FIFO, the cancel behind the submit ---- */
#define SUBMIT 1
#define CANCEL 2
#define durable(m) ((m) == SUBMIT && phase != ABSENT || (m) == CANCEL && seen)
bool queued[3] = false;
bool sent = false;              /* the cancel */

typedef Daemon {
  bool hold, trusted;
  bool cur, fok;
  mtype:phase vphase = ABSENT;
  byte vatt;
  bool vasked;
  mtype:op op = NONE;
  bool mine;                    /* the nonce in the item is this request's */
  bool aged;
  byte watch;
  /* A request that nobody waits for any more. Once anything is written its condition can never
     hold again, so it is forgotten then. */
  mtype:op late = NONE;
  byte hand;                    /* the message the doorbell works on; others may have it too */
}
Daemon D[DAEMONS];

byte j, k;
mtype:op which = NONE;

#ifdef ACK_BEFORE_COMMIT
#define acknowledge(m) queued[m] = false
#else
#define acknowledge(m) skip
#endif

/* ---- writing the item ---- */

inline wrote() {                /* version + 1 */
  for (k : 0 .. DAEMONS - 1) { D[k].cur = false; D[k].mine = false; D[k].late = NONE };
  skip                          /* a d_step must not end in a loop */
}

inline beaten() {               /* version + 1, beat + 1: an owner's write */
  wrote();
  for (k : 0 .. DAEMONS - 1) { D[k].watch = 0 };
  skip
}

inline claimed(d) {             /* fence + 1 */
  for (k : 0 .. DAEMONS - 1) { D[k].fok = false };
  owner = d
}

inline record(a) {              /* an end of attempt a enters the item */
  invariant(!recorded[a]);      /* once */
  recorded[a] = true
}

inline settle(p) { phase = p; owner = NOBODY }

inline next_attempt() {         /* after a failure that may be retried, or after giving up */
  if
  :: asked -> rule(gone(att)); settle(CANCELED)
  :: !asked && att < ATTEMPTS -> rule(gone(att)); att++; phase = RUNNING
  :: else -> invariant(proof(att)); settle(FAILED)     /* never out of an unknown */
  fi
}

inline apply(o, d) {
  invariant(!final);            /* a final workset stays as it is */
  if
  :: o == CLAIM -> claimed(d)
  :: o == BEAT
  :: o == RELEASE -> owner = NOBODY
  :: o == START -> invariant(!asked);   /* a cancel in the item is never passed over */
       att = 1; phase = RUNNING
  :: o == EXIT_0 -> invariant(job[att] == LEFT_0); record(att); settle(COMPLETE)
  :: o == EXIT_1 -> invariant(job[att] == LEFT_1); record(att); next_attempt()
  :: o == ENDED_LOST -> invariant(job[att] == LOST); record(att); next_attempt()
  :: o == GIVE_UP -> phase = GIVING_UP
  :: o == NEXT -> next_attempt()
  :: o == STOP -> phase = CANCELING
  :: o == STOPPED -> rule(gone(att)); settle(CANCELED)
  :: o == CANCEL_NOW -> rule(asked && att == 0); settle(CANCELED)
#ifdef NO_NONCE
  :: o == RESTART -> next_attempt()
#endif
  fi;
  beaten()
}

/* ---- what a daemon knows ---- */

inline look(d) {
  D[d].vphase = phase; D[d].vatt = att; D[d].vasked = asked; D[d].cur = true
}

inline let_go(d) {
  D[d].hold = false; D[d].trusted = false; D[d].cur = false; D[d].fok = false;
  D[d].vphase = ABSENT; D[d].vatt = 0; D[d].vasked = false;
  D[d].op = NONE; D[d].mine = false; D[d].aged = false
}

inline leave_behind(d) {        /* the request in flight may still arrive */
  if
  :: D[d].cur && D[d].op != NONE -> D[d].late = D[d].op
  :: D[d].cur && D[d].op == NONE && D[d].hold -> D[d].late = BEAT
  :: else
  fi
}

inline ask(d, o) { D[d].op = o; D[d].vphase = ABSENT; D[d].vatt = 0 }

inline nobody_else_trusts(d) {
  for (k : 0 .. DAEMONS - 1) { invariant(k == d || !D[k].trusted) };
  skip
}

inline answered(d) {            /* applied, as far as the sender can tell */
  if
  :: D[d].op == CLAIM && D[d].aged -> let_go(d)
  :: D[d].op == CLAIM && !D[d].aged ->
       nobody_else_trusts(d);
       D[d].hold = true; D[d].trusted = true; D[d].op = NONE; D[d].mine = false; look(d)
  :: D[d].op == RELEASE -> let_go(d)
  :: D[d].op != CLAIM && D[d].op != RELEASE && final -> let_go(d)
  :: D[d].op != CLAIM && D[d].op != RELEASE && !final ->
       D[d].op = NONE; D[d].mine = false; look(d)
  fi
}

/* The condition of an owner's write is version and fence; the version alone refuses a stale owner
   too, but only until it looks again. A claim's is the version, and with it the beat. */
#ifdef NO_FENCE
#define condition(d) (D[d].cur)
#define fenced(d) false
#else
#ifdef NO_VERSION
#define condition(d) (D[d].op == CLAIM && D[d].cur || D[d].op != CLAIM && D[d].fok)
#else
#define condition(d) (D[d].cur && (D[d].op == CLAIM || D[d].fok))
#endif
#define fenced(d) (!D[d].fok)
#endif

inline refused(d) {             /* the item is another one: what does it say? */
  if
  :: D[d].op == CLAIM || D[d].op == RELEASE || fenced(d) || final -> let_go(d)
  :: else ->
       look(d);
#ifdef EVENT_WITHOUT_NAME
       if                       /* the same event again, to whatever attempt is found */
       :: D[d].op == EXIT_1 && phase == RUNNING -> D[d].vphase = ABSENT; D[d].vatt = 0
       :: else -> D[d].op = NONE
       fi
#else
       D[d].op = NONE           /* decide again; events name their attempt */
#endif
  fi
}

inline arrive(d) {              /* the answer comes back, or is lost and the request repeated */
  which = D[d].op; apply(which, d); which = NONE;
  if
  :: D[d].op == CLAIM -> D[d].fok = true
  :: else
  fi;
  D[d].mine = true
}

inline timely(d) {              /* without pauses, only the owner of the item acts */
#ifndef PAUSE
  invariant(D[d].fok)
#else
  skip
#endif
}

inline nothing_lost() {
  invariant(queued[SUBMIT] || phase != ABSENT);
  invariant(!sent || queued[CANCEL] || seen)
}

inline crash(d) { leave_behind(d); let_go(d); D[d].watch = 0; D[d].hand = 0; nothing_lost() }

/* ---- one daemon ---- */

proctype Steps(byte d) {
end:
  do
  /* doorbell: what a message says enters the item, then the message is deleted. Until then it comes
     again (visibility timeout, at least once); a delete by an old receipt handle does nothing. */
  :: d_step { alive(d) && D[d].hand == 0 && queued[SUBMIT] ->
       D[d].hand = SUBMIT; acknowledge(SUBMIT) }
  :: d_step { alive(d) && D[d].hand == 0 && queued[CANCEL] && !queued[SUBMIT] ->
       D[d].hand = CANCEL; acknowledge(CANCEL) }
  :: d_step { alive(d) && D[d].hand == SUBMIT && phase == ABSENT -> phase = READY; wrote() }
  :: d_step { alive(d) && D[d].hand == CANCEL && !seen ->
       seen = true;
       if
       :: final || phase == ABSENT || phase == CANCELING
       :: phase == READY && owner == NOBODY -> asked = true; phase = CANCELED
       :: else -> asked = true
       fi;
       wrote() }
  :: d_step { alive(d) && durable(D[d].hand) -> queued[D[d].hand] = false; D[d].hand = 0 }
  :: d_step { FAULTY && durable(D[d].hand) -> D[d].hand = 0 }

  /* contender: free, left by a former self (the flock proves it dead), or watched for a TTL */
  :: d_step { alive(d) && !D[d].hold && D[d].op == NONE && D[d].watch == 0 &&
              owner != NOBODY && owner != d && !final -> D[d].watch = 1 }
#ifndef NO_TAKEOVER
#ifdef TRUST_UNBOUNDED
  :: d_step { alive(d) && D[d].watch == 1 ->
#else
  :: d_step { alive(d) && D[d].watch == 1 && !D[owner].trusted && unanswered_for_ttl(owner) ->
#endif
       D[d].watch = 2;
#ifndef TRUST_FROM_ANSWER
       D[owner].aged = (D[owner].op == CLAIM && D[owner].mine)
#endif
     }
#endif
  :: d_step { alive(d) && !D[d].hold && D[d].op == NONE && phase != ABSENT && !final &&
              (owner == NOBODY || owner == d || D[d].watch == 2) ->
       D[d].watch = 0; D[d].cur = true; ask(d, CLAIM) }

  /* holder: the heartbeat, which returns the item, and the end of trust */
  :: d_step { D[d].hold && D[d].trusted && D[d].fok && alive(d) &&
              (FAULTY || !D[d].cur && D[d].op == NONE) ->
       beaten();
       if
       :: D[d].op == NONE -> look(d)
       :: else                  /* the pending request has lost version and nonce to the beat */
       fi }
#ifndef TRUST_UNBOUNDED
  :: d_step { FAULTY && D[d].hold && D[d].trusted ->
       D[d].trusted = false;
#ifndef PAUSE
       leave_behind(d); let_go(d)
#endif
     }
#endif
#ifdef PAUSE
  :: d_step { alive(d) && D[d].hold && !D[d].trusted -> leave_behind(d); let_go(d) }
#endif

  /* holder: decide on the view, ask for the write */
  :: d_step { may_act(d) && D[d].vphase == READY ->
       if
       :: D[d].vasked -> ask(d, CANCEL_NOW)
       :: else -> ask(d, START)
       fi }
  :: d_step { may_act(d) && (D[d].vphase == RUNNING || D[d].vphase == GIVING_UP) && D[d].vasked ->
       ask(d, STOP) }
  :: d_step { may_act(d) && (D[d].vphase == RUNNING || D[d].vphase == GIVING_UP) && !D[d].vasked &&
              proof(D[d].vatt) && job[D[d].vatt] != KILLED ->
       if
       :: job[D[d].vatt] == LEFT_0 -> ask(d, EXIT_0)
       :: job[D[d].vatt] == LEFT_1 -> ask(d, EXIT_1)
       :: job[D[d].vatt] == LOST -> ask(d, ENDED_LOST)
       fi }
#ifdef UNKNOWN_IS_FAILED
  :: d_step { may_act(d) && D[d].vphase == RUNNING && !proof(D[d].vatt) -> ask(d, EXIT_1) }
#endif
  :: d_step { may_act(d) && D[d].vphase == RUNNING && !D[d].vasked && D[d].vatt < ATTEMPTS &&
              token[D[d].vatt] == FREE -> ask(d, GIVE_UP) }
#ifdef NO_REVOKE                /* it looked, and nothing was there */
#define stopped(a) (gone(a) || job[a] == NOT_SEEN)
#else
#define stopped(a) gone(a)
#endif
  :: d_step { may_act(d) && D[d].vphase == GIVING_UP && !D[d].vasked &&
              !proof(D[d].vatt) && stopped(D[d].vatt) -> ask(d, NEXT) }
  :: d_step { may_act(d) && D[d].vphase == CANCELING && stopped(D[d].vatt) -> ask(d, STOPPED) }
  :: d_step { FAULTY && may_act(d) -> D[d].trusted = false; ask(d, RELEASE) }

  /* holder: effects, none of which a database can refuse */
#ifdef ACT_BEFORE_PERSIST
  :: d_step { may_act(d) && D[d].vphase == READY && flying[1] == 0 -> flying[1]++ }
#endif
  :: d_step { may_act(d) && D[d].vphase == RUNNING && token[D[d].vatt] == FREE &&
              flying[D[d].vatt] < LAUNCHES ->
       timely(d); flying[D[d].vatt]++ }
#ifdef REVOKE_BEFORE_PERSIST
  :: d_step { may_act(d) && D[d].vphase == RUNNING && !D[d].vasked && D[d].vatt < ATTEMPTS &&
              token[D[d].vatt] == FREE -> token[D[d].vatt] = REVOKED; ask(d, NEXT) }
#endif
#ifndef NO_REVOKE
  :: d_step { may_act(d) && (D[d].vphase == GIVING_UP || D[d].vphase == CANCELING) &&
              token[D[d].vatt] == FREE -> timely(d); token[D[d].vatt] = REVOKED }
#endif
  :: d_step { may_act(d) && D[d].vphase == CANCELING && job[D[d].vatt] == LIVE ->
       timely(d); job[D[d].vatt] = KILLED; live-- }

  /* network: a request arrives, or arrives again; its answer comes, sooner or later or never */
  :: d_step { alive(d) && D[d].op != NONE && condition(d) ->
       invariant(D[d].op == CLAIM || D[d].fok);         /* a stale fence writes nothing */
       arrive(d) }
  :: d_step { alive(d) && D[d].mine -> answered(d) }    /* or a repeat finds its nonce */
  :: d_step { alive(d) && D[d].op != NONE && !condition(d) && !D[d].mine -> refused(d) }
#ifdef NO_NONCE
  :: d_step { alive(d) && D[d].mine && D[d].op != CLAIM && phase == RUNNING && att < ATTEMPTS ->
       look(d); D[d].mine = false; ask(d, RESTART) }
  :: d_step { alive(d) && D[d].mine -> let_go(d) }
#endif
  :: d_step { D[d].late != NONE -> which = D[d].late; apply(which, d); which = NONE }
  :: d_step { D[d].late != NONE -> D[d].late = NONE }

  /* kill -9, and a start from nothing */
  :: d_step { FAULTY && (D[d].hold || D[d].op != NONE || D[d].hand != 0) -> crash(d) }
  od
}

/* ---- Slurm, systemd, and the shim; queue, people and faults ---- */

proctype Attempt(byte a) {
end:
  do
  :: d_step { flying[a] > 0 ->  /* however late; the shim wins free -> started, or exits 75 */
       flying[a]--;
       if
#ifdef NO_TOKEN
       :: true ->
#else
       :: token[a] == FREE ->
#endif
            assert(live == 0);                     /* never two live jobs */
            invariant(!final && att == a);         /* none after the end or the next attempt */
            token[a] = STARTED; job[a] = LIVE; live++
#ifndef NO_TOKEN
       :: else
#endif
       fi }
  :: d_step { FAULTY && flying[a] > 0 -> flying[a]-- }
  :: d_step { job[a] == LIVE -> job[a] = LEFT_0; live-- }
  :: d_step { job[a] == LIVE -> job[a] = LEFT_1; live-- }
  :: d_step { job[a] == LIVE -> job[a] = LOST; live-- }
  od
}

proctype World() {
end:
  do
  :: d_step { FAULTY && !sent -> sent = true; queued[CANCEL] = true }
#ifdef QUIET_PHASE
  :: d_step { !quiet -> quiet = true }
  :: d_step { !quiet -> quiet = true; alone = true;
       for (j : 1 .. DAEMONS - 1) { crash(j) }; skip }
#endif
  od
}

init {
  atomic {
    queued[SUBMIT] = true;
    for (j : 0 .. DAEMONS - 1) { run Steps(j) };
    for (j : 1 .. ATTEMPTS) { run Attempt(j) };
    run World()
  }
}

#ifdef QUIET_PHASE
#define settled (final && !queued[SUBMIT] && !queued[CANCEL])
ltl never_lost { [] (quiet -> <> settled) }
#endif
