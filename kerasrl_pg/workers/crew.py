"""The workers of a fit: begun, asked, watched, replaced where they fail, and ended."""

import time
import warnings
from typing import NamedTuple

from kerasrl_pg.workers import engine
from kerasrl_pg.workers.settings import shares
from kerasrl_pg.workers.worker import Place, Worker


class Event(NamedTuple):
    """A worker that failed.

    Args:
        worker: Its number.
        env_steps: The agent's environment steps at that time.
        reason: What happened, in words.
        replaced: Whether another one took its place.
    """

    worker: int
    env_steps: int
    reason: str
    replaced: bool


class Post:
    """One worker's place: who holds it, and what it has been asked.

    Attributes:
        handle: Ray's of the actor; None where it was given up.
        asked: The reference of what it has been asked; None where nothing.
        since: When that was.
        ready: Whether it has said hello.
        warm: Whether it has answered once, before which its programs had to be compiled.
        attempt: How many have held the place before.
    """

    def __init__(self, first, count):
        self.first, self.count = first, count
        self.handle = self.asked = None
        self.since, self.attempt = 0.0, 0
        self.ready = self.warm = False


class Crew:
    """K workers.

    A worker that dies, hangs, or raises is replaced while the others go on, so many times as `Workers` say, each an
    `Event` and a warning; then its place stays empty. When all are, the last reason is raised.

    Args:
        ray: The module.
        workers: `Workers`.
        num_envs: N, shared out to them.

    Attributes:
        events: `Event`s so far.
    """

    def __init__(self, ray, workers, num_envs):
        self._ray, self._workers = ray, workers
        counts = shares(num_envs, workers.count)
        self.posts = [Post(sum(counts[:index]), count) for index, count in enumerate(counts)]
        self.events = []
        self._plan = None

    # Beginning and ending

    def begin(self, plan, env_steps):
        """Starts all workers, and waits until they have begun.

        Args:
            plan: The `Plan`.
            env_steps: Function giving the agent's environment steps, for events.

        Returns:
            Their `Hello`s, by number.

        Raises:
            RuntimeError: If they do not start in time, or have other versions; or whatever their environments raise.
            TypeError: If the plan cannot be sent, since something in it cannot be pickled.
        """
        self._env_steps = env_steps
        try:
            self._plan = self._ray.put(plan)
        except Exception as error:
            raise TypeError(
                "`env` and the agent's own classes must be such that Ray can send them to another process. Received: "
                f"something that cannot be pickled, {type(error).__name__}: {error}. Give an environment's id, or a "
                "function that makes it and opens what it needs itself."
            ) from error
        for index in range(len(self.posts)):
            self._hire(index)
        hellos, end = {}, time.monotonic() + self._workers.start_timeout
        while len(hellos) < len(self.posts):
            asked = {post.asked: index for index, post in enumerate(self.posts) if not post.ready}
            done, _ = self._ray.wait(list(asked), num_returns=1, timeout=max(0.0, end - time.monotonic()))
            if not done:
                raise RuntimeError(self._not_started(len(hellos)))
            index = asked[done[0]]
            hellos[index] = self._result(index)
            self._greet(index)
        return [hellos[index] for index in range(len(self.posts))]

    def _not_started(self, begun):
        cpus = self._ray.cluster_resources().get("CPU", 0)
        wanted = self._workers.cpus * self._workers.count
        return (
            f"Workers must start within {self._workers.start_timeout:g} seconds. Received: {begun} of "
            f"{self._workers.count}. They ask for {wanted:g} of Ray's CPUs, and it has {cpus:g}. Take fewer, "
            "Workers(cpus=...) less, or Workers(start_timeout=...) longer."
        )

    def _hire(self, index):
        """Begins a worker in a place."""
        post = self.posts[index]
        actor = self._ray.remote(Worker).options(
            num_cpus=self._workers.cpus,
            max_restarts=0,
            max_task_retries=0,
            runtime_env={"env_vars": engine.environment(self._workers.threads)},
        )
        post.handle = actor.remote(Place(index, post.first, post.count, post.attempt))
        post.ready = False
        self._ask(index, post.handle.begin.remote(self._plan))

    def _ask(self, index, reference):
        self.posts[index].asked, self.posts[index].since = reference, time.monotonic()

    def _greet(self, index):
        self.posts[index].ready, self.posts[index].asked = True, None

    def close(self):
        """Ends all workers."""
        for post in self.posts:
            self._dismiss(post)
        self._plan = None

    def _dismiss(self, post):
        if post.handle is not None:
            self._ray.kill(post.handle, no_restart=True)
        post.handle = post.asked = None
        post.ready = post.warm = False

    # Asking

    @property
    def there(self):
        """Numbers of the workers that can be asked."""
        return [index for index, post in enumerate(self.posts) if post.ready and post.asked is None]

    @property
    def busy(self):
        """How many have been asked for something."""
        return sum(post.ready and post.asked is not None for post in self.posts)

    @property
    def alive(self):
        """How many have begun and not failed."""
        return sum(post.ready for post in self.posts)

    @property
    def replaced(self):
        """How many have been replaced."""
        return sum(event.replaced for event in self.events)

    def ask(self, index, method, *arguments):
        """Asks a worker for something, which `answers` gives."""
        self._ask(index, getattr(self.posts[index].handle, method).remote(*arguments))

    def put(self, value):
        """Puts a value where all workers can read it; what to hand to `ask`."""
        return self._ray.put(value)

    def answers(self, some=False):
        """What has been asked for, as it comes.

        Args:
            some: Whether one answer is enough; else all that are asked answer, or fail. Where nobody can be asked, it
                waits for who is beginning.

        Returns:
            `{number: answer}`, of those who have not failed.
        """
        found = {}
        while True:
            self._welcome(wait=0.0)
            asked = {p.asked: index for index, p in enumerate(self.posts) if p.ready and p.asked is not None}
            if not asked or (some and found):
                return found
            left = min(self._left(self.posts[index]) for index in asked.values())
            done, _ = self._ray.wait(list(asked), num_returns=1, timeout=max(0.0, left))
            for reference in done:
                found.update(self._answer(asked[reference]))
            if not done:
                self._replace_hung()

    def _answer(self, index):
        try:
            answer = self._result(index)
        except Exception as error:
            self._replace(index, _reason(self._ray, error), error)
            return {}
        self.posts[index].asked, self.posts[index].warm = None, True
        return {index: answer}

    def wait_for_one(self):
        """Waits until somebody can be asked."""
        while not self.there:
            self._welcome(wait=1.0)

    def _welcome(self, wait):
        """Lets those who have begun in the place of others join."""
        beginning = {post.asked: index for index, post in enumerate(self.posts) if post.handle and not post.ready}
        if not beginning:
            return
        done, _ = self._ray.wait(list(beginning), num_returns=len(beginning), timeout=wait)
        for reference in done:
            index = beginning[reference]
            try:
                self._result(index)
            except Exception as error:
                self._replace(index, _reason(self._ray, error), error)
            else:
                self._greet(index)
        for index in set(beginning.values()):
            post = self.posts[index]
            late = time.monotonic() - post.since > self._workers.start_timeout
            if post.handle and not post.ready and late:
                self._replace(index, f"did not start within {self._workers.start_timeout:g} seconds")

    def _result(self, index):
        return self._ray.get(self.posts[index].asked)

    def _limit(self, post):
        """Seconds that an answer may take."""
        if post.warm:
            return self._workers.timeout
        return max(self._workers.timeout, self._workers.start_timeout)

    def _left(self, post):
        return post.since + self._limit(post) - time.monotonic()

    def _replace_hung(self):
        for index, post in enumerate(self.posts):
            if post.ready and post.asked is not None and self._left(post) <= 0.0:
                self._replace(index, f"gave no rollout for {self._limit(post):g} seconds")

    def _replace(self, index, reason, error=None):
        """Ends a worker, and begins another in its place, or gives that up."""
        post = self.posts[index]
        self._dismiss(post)
        again = post.attempt < self._workers.restarts
        self.events.append(Event(index, self._env_steps(), reason, again))
        if again:
            post.attempt += 1
            self._hire(index)
        elif not any(each.handle for each in self.posts):
            raise RuntimeError(
                f"Workers must be there to go on. Received: the last of {len(self.posts)}, worker {index}, {reason}; "
                f"each had been replaced {self._workers.restarts} times. The agent keeps the weights of its last "
                "finished update."
            ) from error
        then = "Another one takes its place." if again else "The others go on without it."
        warnings.warn(f"Worker {index} {reason}, at environment step {self.events[-1].env_steps}. {then}", stacklevel=2)


def _reason(ray, error):
    """What happened to a worker, in words, by what Ray raised."""
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return "was ended by Ray, since its machine is out of memory"
    if isinstance(error, ray.exceptions.RayActorError):
        return "ended: its process or its machine is gone"
    cause = getattr(error, "cause", None) or error
    return f"raised {type(cause).__name__}: {cause}"
