"""Ensembles of decision trees, the baselines of all others (scikit-learn)."""

from mmjax.evaluate.probe import Features, accuracy
from mmjax.evaluate.results import Metrics


def tree_accuracy(train: Features, test: Features, seed: int = 0) -> dict[str, Metrics]:
  """Train ensembles of trees on features, such as pixels or the fields of a table, and test them.

  They are a random forest (Breiman 2001), extremely randomised trees (Geurts et al. 2006), gradient boosting by
  histograms, and AdaBoost (SAMME) of trees of depth 3, with scikit-learn's settings but 300 trees (100 for the last).

  Args:
    train: the examples to learn from.
    test: the examples to score.
    seed: seed of the trees.
  Returns: acc1 and mean_per_class_recall by the name of the method.
  """
  from sklearn.ensemble import AdaBoostClassifier, ExtraTreesClassifier, HistGradientBoostingClassifier
  from sklearn.ensemble import RandomForestClassifier as Forest
  from sklearn.tree import DecisionTreeClassifier

  models = {
    "random forest": Forest(300, random_state=seed),
    "extremely randomised trees": ExtraTreesClassifier(300, random_state=seed),
    "gradient boosting": HistGradientBoostingClassifier(random_state=seed),
    "AdaBoost of trees": AdaBoostClassifier(DecisionTreeClassifier(max_depth=3), n_estimators=100, random_state=seed),
  }
  found = {}
  for name, model in models.items():
    model.fit(train.rows, train.labels)
    found[name] = accuracy(model.predict_proba(test.rows), model.classes_, test)
  return found
