"""Where Keras's training loop meets a fit."""

import tensorflow as tf


class KerasLoop:
    """What Keras's `fit` asks of an agent, answered by the present `Fit`."""

    def make_train_function(self, force=False):
        """Keras's hook: the Python function that runs one execution."""
        self.train_function = lambda _: self._rooms.fit.iterate()

    @property
    def distribute_strategy(self):
        """Keras's hook: how its loop is to distribute data, of which it has none; see `training.mirrored`."""
        return tf.distribute.get_strategy()

    def reset_metrics(self):
        """Starts new epoch means; Keras calls it at each epoch's begin."""
        super().reset_metrics()
        if self._rooms.fit is not None:
            self._rooms.fit.start_epoch()

    # Keras asks `stop_training` both to leave an epoch and to leave the fit. An epoch that has used up its share of
    # environment steps ends through the same door, and the budget's callback closes it again.
    @property
    def stop_training(self):
        """Whether Keras should leave the present loop; callbacks set it to end the fit."""
        fit = self._rooms.fit
        # A number: TensorFlow skips setting an attribute to the very object that it already is, such as True.
        return int(self._rooms.stop_training or (fit is not None and fit.budget.epoch_is_over))

    @stop_training.setter
    def stop_training(self, value):
        if hasattr(self, "_rooms"):
            self._rooms.stop_training = value
